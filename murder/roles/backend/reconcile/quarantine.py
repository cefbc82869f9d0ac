"""Mailboxes that are here although another server has them: kept aside under `DELETED.quarantine.<time>.<name>`.

They are in this server's list and store, and in no other: nobody reaches them through a frontend. When the master names
this server again they come back (`resync`).
"""

from dataclasses import dataclass
from typing import Final

from murder.model.entry import MailboxEntry
from murder.model.name import DELETED_ROOT, MailboxName, split_domain
from murder.roles.mupdate.database.mboxlist import MailboxList

MOST_DOMAINS: Final = 1000  # whose names are kept at a time
ROOT: Final = DELETED_ROOT + b".quarantine."


@dataclass(frozen=True, slots=True)
class Resting:
    """One of them: what it was called, since when it rests (Unix seconds), and where."""

    name: MailboxName
    at: int
    kept_as: MailboxName


def resting_name(name: MailboxName, at: float) -> MailboxName:
    """Where a mailbox rests that was put aside at that second."""
    domain, rest = split_domain(name)
    inner = b"%s%x.%s" % (ROOT, int(at), rest)
    return MailboxName(domain + b"!" + inner if domain else inner)


def parse_resting(entry: MailboxEntry) -> Resting | None:
    """The reverse of `resting_name`; None for any other mailbox."""
    domain, rest = split_domain(entry.name)
    if not rest.startswith(ROOT):
        return None
    stamp, _, inner = rest[len(ROOT) :].partition(b".")
    try:
        at = int(stamp, 16)
    except ValueError:
        return None
    if not inner:
        return None
    return Resting(MailboxName(domain + b"!" + inner if domain else inner), at, entry.name)


class RestingNames:
    """What mailboxes that rest were called, read once for each state of the list: it is asked for every name that is not
    there (unknown recipients), while thousands may rest."""

    def __init__(self, mailboxes: MailboxList) -> None:
        self._mailboxes = mailboxes
        self._seq = -1
        self._names: dict[bytes, frozenset[MailboxName]] = {}  # by domain

    def __contains__(self, name: MailboxName) -> bool:
        seq = self._mailboxes.last_seq()
        if seq != self._seq or len(self._names) >= MOST_DOMAINS:
            self._names.clear()
            self._seq = seq
        domain, _ = split_domain(name)
        names = self._names.get(domain)
        if names is None:
            resting = map(parse_resting, self._mailboxes.walk(_prefix(domain)))
            names = frozenset(
                quarantined.name for quarantined in resting if quarantined is not None
            )
            self._names[domain] = names
        return name in names


def _prefix(domain: bytes) -> bytes:
    return domain + b"!" + ROOT if domain else ROOT


def find_resting(mailboxes: MailboxList, name: MailboxName) -> Resting | None:
    """The one that was put aside last under that name."""
    newest = None
    for entry in mailboxes.walk(_prefix(split_domain(name)[0])):
        resting = parse_resting(entry) if entry.is_active else None
        if resting is not None and resting.name == name:
            if newest is None or newest.at <= resting.at:
                newest = resting
    return newest
