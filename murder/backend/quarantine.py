"""Mailboxes that are here although another server has them: kept aside under `DELETED.quarantine.<time>.<name>`.

They are in this server's list and store, and in no other: nobody reaches them through a frontend. When the master names
this server again they come back (`resync`).
"""

from dataclasses import dataclass
from typing import Final

from murder.model.entry import MailboxEntry
from murder.model.name import DELETED_ROOT, MailboxName, split_domain
from murder.mupdate.mboxlist import MailboxList

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


def find_resting(mailboxes: MailboxList, name: MailboxName) -> Resting | None:
    """The one that was put aside last under that name. Costs one seek while nothing rests (in its domain)."""
    domain, _ = split_domain(name)
    prefix = domain + b"!" + ROOT if domain else ROOT
    found = None
    for entry in mailboxes.walk(prefix):
        resting = parse_resting(entry) if entry.is_active else None
        if resting is not None and resting.name == name:
            if found is None or found.at <= resting.at:
                found = resting
    return found
