"""All that a plugin sees: the hooks, the Protocols it fulfils, the values it is given."""

from murder.api.auth import (
    AuthBackend,
    ChecksFewAtOnce,
    HasScramDecoys,
    HasScramSecrets,
    ManagesUsers,
    RecallsPasswords,
    ScramSecret,
)
from murder.api.carry import CarriedMessage, CarriesMailboxes
from murder.api.hookspecs import hookimpl
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.store import (
    CanCheck,
    CountsSubscriptions,
    FindsByFlag,
    FlagChange,
    Incoming,
    KeepsEpoch,
    Mailbox,
    MailboxStore,
    NewMessage,
    NoticesMailboxes,
    StepsModSeq,
    Stored,
    StoredMailbox,
    StoreListener,
    TellsFlags,
    TellsKeywords,
    TellsRecent,
    TellsSummaries,
)
from murder.model.identity import Identity

__all__ = [
    "AuthBackend",
    "BackendLoad",
    "CanCheck",
    "CarriedMessage",
    "CarriesMailboxes",
    "ChecksFewAtOnce",
    "CountsSubscriptions",
    "FindsByFlag",
    "NoticesMailboxes",
    "Conduct",
    "FlagChange",
    "KeepsEpoch",
    "HasScramDecoys",
    "HasScramSecrets",
    "Identity",
    "Incoming",
    "Mailbox",
    "MailboxStore",
    "ManagesUsers",
    "NewMailbox",
    "NewMessage",
    "RecallsPasswords",
    "ReferralQuestion",
    "ScramSecret",
    "StepsModSeq",
    "Stored",
    "StoreListener",
    "StoredMailbox",
    "TellsFlags",
    "TellsKeywords",
    "TellsRecent",
    "TellsSummaries",
    "hookimpl",
]
