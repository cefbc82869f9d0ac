"""All that a plugin sees: the hooks, the Protocols it fulfils, the values it is given."""

from murder.api.auth import (
    AuthBackend,
    HasScramSecrets,
    Identity,
    ManagesUsers,
    ScramSecret,
)
from murder.api.carry import CarriedMessage, CarriesMailboxes
from murder.api.hookspecs import hookimpl
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.store import (
    CanCheck,
    FindsByFlag,
    FlagChange,
    Incoming,
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

__all__ = [
    "AuthBackend",
    "BackendLoad",
    "CanCheck",
    "CarriedMessage",
    "CarriesMailboxes",
    "FindsByFlag",
    "NoticesMailboxes",
    "Conduct",
    "FlagChange",
    "HasScramSecrets",
    "Identity",
    "Incoming",
    "Mailbox",
    "MailboxStore",
    "ManagesUsers",
    "NewMailbox",
    "NewMessage",
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
