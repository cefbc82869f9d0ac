"""Where a script's mailbox is: here, or at another backend of the murder; asked as the script's owner."""

from dataclasses import dataclass
from itertools import islice
from typing import Final

from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import (
    MailboxName,
    check_new_name,
    inbox_of,
    is_deleted,
    is_non_imap,
)
from murder.model.rights import rights_in, takes_mail
from murder.net.turns import in_turns
from murder.roles.backend.shared import Backend
from murder.wire import mutf7

MAX_OPENED: Final = 1000  # mailboxes of a user, for an id
MAX_LOOKED_AT: Final = 10_000  # mailboxes of a user, for a special use


@dataclass(frozen=True, slots=True)
class Place:
    """A mailbox that a script may file into; `server` is "" for one here."""

    name: MailboxName
    server: str = ""


async def find_place(backend: Backend, user: str, mailbox: str, *, create: bool) -> Place:
    """The mailbox that `user` calls so, into which they may put mail (right `i`), made where it is to be; for nobody ("")
    one that takes mail from anybody. Raises Refusal where it cannot be had, UpstreamFailure where that is not known now."""
    name = backend.namespace.internal(mutf7.encode(mailbox), user)
    if is_deleted(name) or is_non_imap(name):
        raise Refusal(Code.NONEXISTENT, "No mail can be stored there")
    if not user:
        return await _place_of_nobody(backend, name)
    login = await backend.gate.login_of(user)
    if backend.mailboxes.find(name) is None:
        entry = await _find_elsewhere(backend, name)
        if entry is not None:
            if "i" not in rights_in(entry, login.identity):
                raise Refusal(Code.NO_PERMISSION, "You may not store mail in this mailbox")
            return Place(name, entry.server)
        if create:
            await _make(backend, name, login)
    backend.mailboxes.require(name, login, "i")
    return Place(name)


async def _place_of_nobody(backend: Backend, name: MailboxName) -> Place:
    """A shared mailbox's script acts for nobody: it may what mail that arrives may, here and elsewhere (as with Cyrus, the
    right `p`), and makes no mailboxes. Raises Refusal, UpstreamFailure."""
    here = backend.mailboxes.find(name)
    entry = here or await _find_elsewhere(backend, name)
    if entry is None:
        backend.mailboxes.check_has_not_left(name)
        raise Refusal(Code.NONEXISTENT, "No such mailbox")
    if not takes_mail(entry):
        raise Refusal(Code.NO_PERMISSION, "Nobody may post to this mailbox")
    return Place(name, "" if here else entry.server)


async def find_kept(backend: Backend, name: MailboxName) -> Place | None:
    """Where a mailbox is that has kept mail before. Raises Refusal, UpstreamFailure where that is not known now."""
    if backend.mailboxes.find(name) is not None:
        return Place(name)
    entry = await _find_elsewhere(backend, name)
    return Place(name, entry.server) if entry is not None else None


async def _find_elsewhere(backend: Backend, name: MailboxName) -> MailboxEntry | None:
    """At another server, by the master. Raises Refusal, UpstreamFailure."""
    if backend.master is None:
        return None
    entry = await backend.master.find(name)
    if entry is None or entry.server == backend.server_name:
        return None
    if not entry.is_active:
        raise Refusal(Code.UNAVAILABLE, "The mailbox is being created or moved")
    return entry


async def _make(backend: Backend, name: MailboxName, login: Login) -> None:
    check_new_name(name)
    backend.mailboxes.check_has_not_left(name)
    backend.mailboxes.check_may_create(name, login)
    try:
        await backend.announcer.create(name, backend.mailboxes.default_acl(name))
    except Refusal as refusal:
        if refusal.code is not Code.ALREADY_EXISTS:  # by another message, at the same time
            raise


async def find_by_id(backend: Backend, user: str, mailbox_id: str) -> MailboxName | None:
    """The user's mailbox here that has this MAILBOXID (RFC 8474), into which they may put mail."""
    inbox = inbox_of(user)
    names = [inbox, *(entry.name for entry in islice(backend.mailboxes.below(inbox), MAX_OPENED))]
    async for name in in_turns(names):
        try:
            mailbox = await backend.store.open(name, user)
        except Refusal:
            continue
        is_it = mailbox.mailbox_id == mailbox_id
        mailbox.close()
        if is_it:
            login = await backend.gate.login_of(user)
            try:
                backend.mailboxes.require(name, login, "i")
            except Refusal:
                return None
            return name
    return None


async def resolve_special_use(
    backend: Backend, user: str, use: str, mailbox: str | None = None
) -> MailboxName | None:
    """The user's mailbox here that has this special use; with `mailbox`, only that one."""
    inbox = inbox_of(user)
    wanted = None
    if mailbox is not None:
        try:
            wanted = backend.namespace.internal(mutf7.encode(mailbox), user)
        except Refusal:
            return None
    async for head in in_turns(islice(backend.mailboxes.below(inbox), MAX_LOOKED_AT)):
        if wanted is not None and head.name != wanted:
            continue
        uses = backend.annotations.special_uses(head.name, user)
        if use.lower() in (own_use.lower() for own_use in uses):
            return head.name
    return None
