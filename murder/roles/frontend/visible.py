"""What mailboxes somebody may know of, whatever they speak."""

from collections.abc import Iterable, Iterator

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName, ancestors_of
from murder.model.rights import MANAGED, nonexistent, rights_in
from murder.roles.frontend.placement import nearest
from murder.roles.frontend.shared import Frontend


def may_know_of(entry: MailboxEntry, login: Login) -> bool:
    """Whether they may know that it exists."""
    return bool(rights_in(entry, login.identity, login.is_admin) & MANAGED)


def may_know_of_new(frontend: Frontend, name: MailboxName, login: Login) -> bool:
    """Whether they may know of a mailbox that is being created or moved: its row has no access list, so by the one
    that it begins with, which is that of the mailbox above."""
    above = nearest(frontend, ancestors_of(name))
    raw_acl = above.raw_acl if above is not None else b""
    return may_know_of(MailboxEntry(name, EntryState.ACTIVE, b"", raw_acl), login)


def shown_to(frontend: Frontend, login: Login, prefixes: Iterable[bytes]) -> Iterator[MailboxEntry]:
    """What LIST may tell them below these prefixes."""
    has_domains = frontend.namespace.domains
    return frontend.mailboxes.shown_to(login, prefixes, has_domains=has_domains)


async def find(frontend: Frontend, name: MailboxName, login: Login) -> MailboxEntry:
    """A mailbox that they may know of. One of others is refused as one that is not there, and as late: who asks is told
    neither that it exists nor where. Raises Refusal(NONEXISTENT), UpstreamFailure."""
    locator = frontend.locator
    try:
        entry = await locator.find(name)
        if may_know_of(entry, login):
            return entry
        await locator.catch_up()  # as for a name that this host's list does not have
        late = locator.known(name)
        if late is not None and may_know_of(late, login):
            return late
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
    except UpstreamFailure as failure:
        if failure.kind is not UpstreamKind.MOVING or may_know_of_new(frontend, name, login):
            raise
    locator.check_whole()  # as for a name that is not there
    raise nonexistent(frontend.namespace, name, login.user)
