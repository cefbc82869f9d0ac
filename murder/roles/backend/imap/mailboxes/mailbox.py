"""CREATE, DELETE, RENAME (RFC 3501 §6.3.3 to §6.3.5, RFC 4314 §4), announced to the master as they happen."""

from collections.abc import Sequence
from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import DELETE_MAILBOX
from murder.model.entry import Location, parse_location
from murder.model.name import (
    MailboxName,
    check_new_name,
    deleted_name,
    exists_already,
    inbox_of,
    is_below,
    is_inbox,
    owner_of,
)
from murder.model.rights import Missing
from murder.roles.backend.changes.news import Kind
from murder.roles.backend.hierarchy.intent import tree_of
from murder.roles.backend.hierarchy.limits import check_depth, check_room_for_mailboxes
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.joint import delete_tree, told_of
from murder.roles.backend.imap.mailboxes.xfer import move_away, need_admin
from murder.roles.backend.records.annotations import SPECIAL_USES, note_of
from murder.roles.backend.renames.coordinator import Wish
from murder.roles.backend.renames.mailboxes import is_much
from murder.roles.backend.renames.tree import Knows, Tree, moment_of_deletion, rests_when_deleted
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import trace_copies
from murder.roles.mupdate.database.change import Change
from murder.serve.client import Running
from murder.wire import mutf7
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.mailbox import (
    CreateRequest,
    RenameRequest,
    parse_create,
    parse_joint_rename,
    parse_mailbox,
    parse_rename,
)
from murder.wire.nodes.rename_words import Act
from murder.wire.token import Scanner

TRIES: Final = 4  # to find a moment at which no mailbox of that name was deleted


def run_create(dialogue: BackendImap, command: Command) -> Running:
    """CREATE (RFC 3501 §6.3.3, special uses of RFC 6154): reserved at the master, made, then shown."""
    request = parse_create(Scanner(command.octets, command.start))
    return _create(dialogue, command, request)


async def _create(dialogue: BackendImap, command: Command, request: CreateRequest) -> None:
    backend, login = dialogue.backend, dialogue.user
    name = new_name(dialogue, request.mailbox)
    beside = _special_use(dialogue, name, request)
    partition = _partition(dialogue, request.partition)
    if name == inbox_of(login.user) and not login.is_admin:
        if backend.mailboxes.list.find(name) is not None:
            raise Refusal(Code.ALREADY_EXISTS, "INBOX always exists")
        raise Refusal(Code.NO_PERMISSION, "Only an administrator can create your INBOX")
    backend.mailboxes.check_may_create(name, login)
    await check_room_for_mailboxes(backend, login, [name])
    await backend.quotas.check_room(name, mailboxes=1)
    with dialogue.causing((Kind.CREATED, name)):
        stored = await backend.announcer.create(
            name, backend.mailboxes.default_acl(name), partition, beside=beside
        )
    await dialogue.finish(command, code=b"MAILBOXID (%s)" % stored.mailbox_id.encode())


def new_name(dialogue: BackendImap, external: bytes) -> MailboxName:
    """A name that is to come into being. Raises Refusal where none may be called so."""
    if not dialogue.manner.utf8:
        try:
            mutf7.decode(external)
        except BadSyntax as error:
            raise Refusal(Code.CANNOT, f"Not valid modified UTF-7: {error.text}") from None
    name = dialogue.name_of(external)
    check_new_name(name)
    return name


def _special_use(dialogue: BackendImap, name: MailboxName, request: CreateRequest) -> list[Change]:
    """RFC 6154 §3: of those that are known, in the user's own tree; an administrator's is the owner's. Raises Refusal."""
    if not request.special_use:
        return []
    user = owner_of(name) if dialogue.user.is_admin else dialogue.user.user
    asked = [use.decode("ascii", "replace") for use in request.special_use]
    unknown = [use for use in asked if use.lower() not in SPECIAL_USES]
    if unknown or user is None or owner_of(name) != user:
        raise Refusal(Code.USE_ATTR, f"{(unknown or asked)[0]} cannot be set for this mailbox")
    return [note_of(name, user, " ".join(SPECIAL_USES[use.lower()] for use in asked))]


def _partition(dialogue: BackendImap, raw_partition: bytes | None) -> str:
    """Cyrus' second argument: `partition`, or `server!partition` where the server is this one."""
    if raw_partition is None:
        return ""
    login = dialogue.user
    if not login.is_admin and not login.by_proxy:
        raise Refusal(Code.NO_PERMISSION, "Only an administrator chooses the partition")
    location = parse_location(raw_partition)
    here = dialogue.backend.server_name
    if not location.server:  # `!partition`
        location = Location(here, location.partition)
    elif b"!" not in raw_partition:
        location = Location(here, location.server)
    if location.server != here:
        raise Refusal(Code.CANNOT, f"This is not the server {location.server}")
    dialogue.backend.check_partition(location.partition)
    return location.partition


def run_delete(dialogue: BackendImap, command: Command) -> Running:
    """DELETE (RFC 3501 §6.3.4). Of a user's INBOX, by an administrator: of all that the user has."""
    name = dialogue.name_of(parse_mailbox(Scanner(command.octets, command.start)))
    return _delete(dialogue, command, name)


async def _delete(dialogue: BackendImap, command: Command, name: MailboxName) -> None:
    mailboxes, login = dialogue.backend.mailboxes, dialogue.user
    mailboxes.require(name, login, DELETE_MAILBOX)
    if is_inbox(name):
        if not login.is_admin or name == inbox_of(login.user):
            raise Refusal(Code.CANNOT, "INBOX cannot be deleted")
        await delete_tree(dialogue, command, name)
        return
    mailbox_id = await _mailbox_id(dialogue, name)
    with dialogue.causing((Kind.DELETED, name)):
        await remove(dialogue.backend, name, dialogue.renames.coordinator.master)
    dialogue.backend.tracker.mailbox_changed(mailbox_id)
    if dialogue.selected is not None and dialogue.selected.name == name:
        dialogue.close_deleted()
    await dialogue.finish(command)


async def remove(backend: Backend, name: MailboxName, master: Knows | None) -> None:
    """At once, or by putting it to rest under DELETED until it expires. Raises Refusal, UpstreamFailure."""
    if not await rests_when_deleted(backend, [name]):
        await backend.announcer.delete([name])
        return
    for tries_left in reversed(range(TRIES)):
        now = await moment_of_deletion(backend, master, name)
        try:
            return await backend.announcer.rename([(name, deleted_name(name, now))])
        except Refusal as refusal:  # another one of this name has been deleted since we looked
            if refusal.code is not Code.ALREADY_EXISTS or not tries_left:
                raise


async def _mailbox_id(dialogue: BackendImap, name: MailboxName) -> str:
    """Under which its sessions know it; "" where the store has lost it."""
    try:
        mailbox = await dialogue.backend.store.open(name, dialogue.user.user)
    except Refusal:
        return ""
    mailbox_id = mailbox.mailbox_id
    mailbox.close()
    return mailbox_id


def run_rename(dialogue: BackendImap, command: Command) -> Running:
    """RENAME (RFC 3501 §6.3.5), of a mailbox with all below it."""
    request = parse_rename(Scanner(command.octets, command.start))
    return _rename(dialogue, command, request)


def _check_stays(backend: Backend, where: bytes) -> None:
    """Raises Refusal where Cyrus' third argument, `partition` or `server!partition`, is not where all of this server is."""
    server, mark, partition = where.decode("utf-8", "replace").rpartition("!")
    if mark and server != backend.server_name:
        text = (
            "A mailbox moves to another server under its own name: rename it before or afterwards"
        )
        raise Refusal(Code.CANNOT, text)
    backend.check_partition(partition)


def run_xrename(dialogue: BackendImap, command: Command) -> Running:
    """Of a frontend, or an operator's program, that knows of parts on other servers: they are spoken to as this node."""
    request = parse_joint_rename(Scanner(command.octets, command.start))
    if not dialogue.user.is_admin and not dialogue.user.by_proxy:
        raise Refusal(Code.NO_PERMISSION, "Only a frontend or an administrator names servers")
    return _rename(dialogue, command, request)


async def _rename(dialogue: BackendImap, command: Command, request: RenameRequest) -> None:
    backend, login = dialogue.backend, dialogue.user
    old, new = dialogue.name_of(request.old), new_name(dialogue, request.new)
    if request.partition is not None and old == new and b"!" in request.partition:
        need_admin(dialogue)  # as with Cyrus: `RENAME x x server!partition` is XFER
        location = parse_location(request.partition)
        await move_away(dialogue, command, old, location.server, location.partition)
        return
    if request.partition is not None:
        need_admin(dialogue)
        if backend.mailboxes.find(old) is not None:
            _check_stays(backend, request.partition)
            if old == new:  # it is there
                await dialogue.finish(command)
                return
    try:
        backend.mailboxes.require(old, login, DELETE_MAILBOX)
    except Missing as missing:
        missing.new_name = new
        raise
    if new == inbox_of(login.user) and not login.is_admin:
        raise Refusal(Code.ALREADY_EXISTS, "INBOX always exists")
    if old == new:
        raise exists_already(new)
    stays = is_inbox(old) and not (login.is_admin and is_inbox(new))
    if is_below(new, old) and not stays:
        raise Refusal(Code.CANNOT, "A mailbox cannot be moved below itself")
    backend.mailboxes.check_may_create(new, login)
    if stays:
        await check_room_for_mailboxes(backend, login, [new])
        await _move_inbox(dialogue, old, new)
        await dialogue.finish(command)
        return
    late = await _rename_tree(dialogue, Tree(Act.RENAME, old, new), request.servers)
    await dialogue.finish(command, told_of(late))


async def _rename_tree(dialogue: BackendImap, tree: Tree, named: Sequence[str]) -> Sequence[str]:
    """The servers whose part is decided, and not done yet. Raises Refusal, UpstreamFailure: then nothing has changed."""
    backend, login = dialogue.backend, dialogue.user
    old, new = tree.old, tree.new
    moves = await tree.moves_at(backend)
    for _, target in moves:
        check_new_name(target)
    into_another = tree_of(old) != tree_of(new)
    for _, target in moves if not login.is_admin else ():
        check_depth(backend, target)
    if into_another:
        await check_room_for_mailboxes(backend, login, [target for _, target in moves])
    coordinator = dialogue.renames.coordinator
    servers = await coordinator.servers_below(tree, named)
    with dialogue.causing((Kind.RENAMED, new)):
        # a user's subscriptions and annotations go along; much is done some at a time, once it is decided
        if servers or is_inbox(old) or await is_much(backend.mailboxes.list, moves):
            wish = Wish(tree, moves, servers, login.user, login.is_admin)
            return await coordinator.rename(wish)
        await backend.announcer.rename(moves)
    return ()


async def _move_inbox(dialogue: BackendImap, old: MailboxName, new: MailboxName) -> None:
    """RFC 3501 §6.3.5: the messages go to a new mailbox, INBOX stays, empty; what is below it stays too."""
    backend = dialogue.backend

    async def fill() -> None:
        source = await backend.store.open(old, dialogue.user.user)
        target = await backend.store.open(new, dialogue.user.user)
        try:
            moved = await source.move(await source.uids(), target)
            await trace_copies(dialogue, source, target, moved, moving=True)
        finally:
            source.close()
            target.close()

    with dialogue.causing((Kind.CREATED, new)):
        await backend.announcer.create(new, backend.mailboxes.default_acl(new), fill=fill)
