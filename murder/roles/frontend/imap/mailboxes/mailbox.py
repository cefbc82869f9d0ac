"""CREATE, DELETE, RENAME, SETACL, DELETEACL: at the backend where the mailbox is or shall be; then our list catches up.

The tagged OK is passed on only when this host's list has the change: the client's next command sees it (read your
writes). Where a worker of the backend dies meanwhile, nobody has said whether it was done: it is asked for once more, and
what is as the client wanted it is done. RFC 3501 §6.3.3 to §6.3.5, RFC 4314 §3.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import DELETE_MAILBOX
from murder.model.entry import MailboxEntry, parse_location
from murder.model.name import (
    MailboxName,
    ancestors_of,
    check_new_name,
    inbox_of,
    is_below,
    is_inbox,
    moved,
    owner_of,
)
from murder.model.rights import check_may_create
from murder.net.outgoing.exchange import Reply, parse_reply
from murder.net.turns import in_turns
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import body_of, execute, hear_offer, refusal_of, under_tag
from murder.roles.frontend.imap.mail.target import has_moved
from murder.roles.frontend.imap.mailboxes.apart import DeletedApart
from murder.roles.frontend.imap.patience import ENDED_S, Patience
from murder.roles.frontend.imap.refer import find_or_refer
from murder.roles.frontend.imap.selected import Selected
from murder.roles.frontend.placement import home_for, nearest, parent_of_new, servers
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.mailbox import (
    CreateRequest,
    RenameRequest,
    TreeRequest,
    format_joint_rename,
    format_tree,
    parse_create,
    parse_mailbox,
    parse_rename,
)
from murder.wire.nodes.rename_words import CAPABILITY, TREES
from murder.wire.token import Scanner, client_astring

# of what has been done before, or is being ended
IN_THE_WAY: Final = frozenset({b"ALREADYEXISTS", b"NONEXISTENT", b"INUSE"})
# a server that will not be there in a moment, whoever of its workers is asked
GONE_FOR_LONGER: Final = frozenset({UpstreamKind.RESOLVE, UpstreamKind.CONNECT, UpstreamKind.DOWN})
# whether this host's list is as a change makes it; None: it could be so without the change
Seen = Callable[[], bool | None]


async def _stays(_: Code) -> bool:
    return False


async def change_at(
    dialogue: FrontendImap,
    server: str,
    octets: bytes,
    command: Command,
    is_done: Seen = lambda: None,
    refused: Callable[[Refusal], Awaitable[None]] | None = None,
    has_left: Callable[[Code], Awaitable[bool]] = _stays,
) -> Reply | None:
    """Send a change, without tag, as an own command; pass its tagged line on behind the catching-up. `refused` is awaited
    before the client hears of that. None, and nothing is passed on, where it was refused with a code that `has_left` says
    is for a mailbox that has moved meanwhile. Raises Refusal, UpstreamFailure."""
    try:
        reply = await execute(dialogue, await dialogue.upstream(server), octets)
    except UpstreamFailure as failure:
        # else it says that it lasts, unless it sleeps, or is a Cyrus
        if failure.kind is UpstreamKind.TIMEOUT:
            raise _in_doubt(server, failure.kind.reply) from failure
        if failure.kind is not UpstreamKind.LOST or dialogue.is_leaving:
            raise
        reply = await _once_more(dialogue, server, octets, is_done)
    if reply.is_ok:
        await dialogue.catch_up()
    elif reply.code and await has_left(refusal_of(reply).code):
        return None
    elif refused is not None:
        await refused(refusal_of(reply))
    dialogue.send(under_tag(command, reply))
    return reply


async def _once_more(dialogue: FrontendImap, server: str, octets: bytes, is_done: Seen) -> Reply:
    """Whoever takes it now has undone what the one before had begun, or ends it: then it is in the way until the master has
    heard of it. Raises Refusal where nobody says in time how it ended."""
    dialogue.log.info("command.repeated", backend=server)
    patience, problem = Patience(dialogue, ENDED_S), ""
    while True:
        try:
            reply = await execute(dialogue, await dialogue.upstream(server), octets)
        except UpstreamFailure as failure:
            problem = failure.kind.reply
            if failure.kind in GONE_FOR_LONGER or not await patience.pause():
                break
            continue
        if reply.is_ok or reply.code.upper() not in IN_THE_WAY:
            return reply
        await dialogue.catch_up()
        match is_done():
            case True:
                return parse_reply(b"- OK Completed\r\n")
            case None:
                return reply
        problem = reply.text
        if not await patience.pause():
            break
    raise _in_doubt(server, problem)


def _in_doubt(server: str, problem: str) -> Refusal:
    text = f"{server} has begun it, and may end it later: what is listed then tells how ({problem})"
    return Refusal(Code.UNAVAILABLE, text)


def run_create(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.3: at the backend that a placement plugin chooses, or that the name's parent has."""
    return _create(dialogue, command, parse_create(Scanner(command.octets, command.start)))


async def _create(dialogue: FrontendImap, command: Command, request: CreateRequest) -> None:
    name = dialogue.name_of(request.mailbox)
    check_new_name(name)
    server, partition = _place_given(dialogue, request.partition)
    if not server:
        await _check_may_create(dialogue, name)
        known = dialogue.frontend.locator.known(name)
        if known:
            server = known.server
        else:

            async def ask(backend: str) -> None:
                await hear_offer(dialogue, backend)

            server = await home_for(dialogue.frontend, name, dialogue.user, ask)
    elif server not in servers(dialogue.frontend):
        await _check_reachable(dialogue, server)
    locator = dialogue.frontend.locator
    is_new = locator.known(name) is None
    if is_new and not nearest(dialogue.frontend, ancestors_of(name)):
        locator.check_whole()  # who names the server knows no more of what the list has lost
    octets = _format_create(request, partition)
    await change_at(
        *(dialogue, server, octets, command),
        lambda: locator.known(name) is not None if is_new else None,
    )


async def _check_may_create(dialogue: FrontendImap, name: MailboxName) -> None:
    """Before anything tells what is there, and where. Raises Refusal, UpstreamFailure."""
    login, frontend = dialogue.user, dialogue.frontend
    if login.is_admin or name == inbox_of(login.user):
        return
    parent = await parent_of_new(frontend, name)
    try:
        check_may_create(name, parent, login, dialogue.namespace)
    except Refusal:
        await frontend.locator.catch_up()
        parent = nearest(frontend, ancestors_of(name))
        if parent is not None and not dialogue.may_know_of(parent):
            frontend.locator.check_whole()  # as where nothing is above
        check_may_create(name, parent, login, dialogue.namespace)


async def _check_reachable(dialogue: FrontendImap, server: str) -> None:
    """A backend that nobody has heard of yet may be a new one, or a slip. Raises Refusal, UpstreamFailure."""
    try:
        await dialogue.upstream(server)
    except UpstreamFailure as failure:
        if failure.kind is not UpstreamKind.RESOLVE:
            raise
        known = ", ".join(sorted(servers(dialogue.frontend)))
        raise Refusal(
            Code.CANNOT, f"There is no server {server}; this murder has {known}"
        ) from failure


def _place_given(dialogue: FrontendImap, given: bytes | None) -> tuple[str, str]:
    """What an administrator wants, `server!partition`, `server` or `partition`: `(server, partition)`, "" for either that
    they leave to us. Raises Refusal."""
    if given is None:
        return "", ""
    if not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, "Only an administrator chooses server and partition")
    location = parse_location(given)
    if b"!" in given:
        return location.server, location.partition
    if location.server in servers(dialogue.frontend):
        return location.server, ""
    return "", location.server


def _format_create(request: CreateRequest, partition: str) -> bytes:
    octets = b"CREATE " + client_astring(request.mailbox)
    where = client_astring(partition.encode("utf-8", "surrogateescape"))
    if not request.special_use:
        return octets + b" " + where if partition else octets
    octets += b" (USE (" + b" ".join(request.special_use) + b")"
    return octets + (b" PARTITION " + where if partition else b"") + b")"


def run_delete(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.4. An administrator's of an INBOX removes the user, on every backend."""
    return _delete(dialogue, command, parse_mailbox(Scanner(command.octets, command.start)))


async def _delete(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    patience, apart = Patience(dialogue), DeletedApart(dialogue)
    while not await _delete_at_home(dialogue, command, external, patience, apart):
        pass  # it is on its way elsewhere


async def _delete_at_home(
    dialogue: FrontendImap,
    command: Command,
    external: bytes,
    patience: Patience,
    apart: DeletedApart,
) -> bool:
    """False where it has left before that; what is `apart` may be gone then."""
    try:
        entry = await find_or_refer(dialogue, dialogue.name_of(external), command, patience)
        doomed_below = is_inbox(entry.name) and dialogue.user.is_admin
        octets = await _doom(dialogue, entry, command, apart) if doomed_below else body_of(command)
    except (Refusal, UpstreamFailure) as problem:
        await apart.take_back(problem)
        raise
    locator = dialogue.frontend.locator
    try:
        reply = await change_at(
            dialogue,
            entry.server,
            octets,
            command,
            lambda: locator.known(entry.name) is None,
            apart.take_back,
            lambda code: has_moved(dialogue, external, entry.server, code, patience),
        )
    except (Refusal, UpstreamFailure) as problem:
        await apart.take_back(problem)
        raise
    if reply is None:
        return False
    selected = dialogue.selected
    if reply.is_ok and selected is not None:
        is_doomed = doomed_below and is_below(selected.name, entry.name)
        if selected.name == entry.name or is_doomed:
            dialogue.deselect()
    return True


async def _doom(
    dialogue: FrontendImap, inbox: MailboxEntry, command: Command, apart: DeletedApart
) -> bytes:
    """The command by which the backend of a user's INBOX deletes all of them, with the others that have a part: where it (a
    Cyrus) asks no others, those are `apart`, and gone by now. Raises Refusal, UpstreamFailure."""
    below = await _elsewhere_below(dialogue, inbox)
    if not below:
        return body_of(command)
    if TREES in (await dialogue.upstream(inbox.server)).capabilities:
        servers = tuple(sorted({row.server for row in below}))
        request = TreeRequest(dialogue.external(inbox.name), servers)
        return format_tree(b"XDELETE", request)
    await apart.delete(below)
    return body_of(command)


async def _elsewhere_below(dialogue: FrontendImap, above: MailboxEntry) -> list[MailboxEntry]:
    """What is below a mailbox and on another backend."""
    mailboxes = dialogue.frontend.mailboxes
    heads = in_turns(mailboxes.heads_below(above.name))
    names = [head.name async for head in heads if head.is_active and head.server != above.server]
    rows = [mailboxes.find(name) async for name in in_turns(names)]
    return [row for row in rows if row is not None and row.is_active]


def run_rename(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.5; with a partition it is a move to another backend, as Cyrus has it."""
    return _rename(dialogue, command, parse_rename(Scanner(command.octets, command.start)))


async def _rename(dialogue: FrontendImap, command: Command, request: RenameRequest) -> None:
    patience = Patience(dialogue)
    while not await _rename_at_home(dialogue, command, request, patience):
        pass  # it is on its way elsewhere


async def _rename_at_home(
    dialogue: FrontendImap, command: Command, request: RenameRequest, patience: Patience
) -> bool:
    """False where it has left before that."""
    old, new = dialogue.name_of(request.old), dialogue.name_of(request.new)
    check_new_name(new)
    entry = await find_or_refer(dialogue, old, command, patience)
    if request.partition is not None and b"!" in request.partition:
        await _move(dialogue, command, entry)
        return True
    takes_tree = not is_inbox(old) or (dialogue.user.is_admin and is_inbox(new))
    if not dialogue.may(entry, DELETE_MAILBOX):
        await dialogue.relay_at(entry.server, command)  # it is refused there
        return True
    await _check_may_create(dialogue, new)
    await _check_parent_is_there(dialogue, entry, new)
    elsewhere = await _elsewhere_below(dialogue, entry) if takes_tree else []
    octets = await _joint(dialogue, entry, request, elsewhere) if elsewhere else body_of(command)
    locator = dialogue.frontend.locator
    is_new = locator.known(new) is None

    def is_done() -> bool | None:
        is_gone = locator.known(old) is None or not takes_tree
        return is_gone and locator.known(new) is not None if is_new else None

    async def has_left(code: Code) -> bool:
        return await has_moved(dialogue, request.old, entry.server, code, patience)

    reply = await change_at(dialogue, entry.server, octets, command, is_done, has_left=has_left)
    if reply is None:
        return False
    selected = dialogue.selected
    if reply.is_ok and takes_tree and selected is not None and is_below(selected.name, old):
        name = moved(selected.name, old, new)
        dialogue.selected = Selected(selected.upstream, name, selected.is_read_only)
    return True


def run_xfer(dialogue: FrontendImap, command: Command) -> Running:
    """Cyrus' XFER, for administrators: carried out by the backend that has the mailbox."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    name = dialogue.name_of(scanner.astring())
    return _xfer(dialogue, command, name)


async def _xfer(dialogue: FrontendImap, command: Command, name: MailboxName) -> None:
    await _move(dialogue, command, await dialogue.find(name))


async def _move(dialogue: FrontendImap, command: Command, entry: MailboxEntry) -> None:
    """XFER, or RENAME with another server's location: an administrator's own rights go along. Raises Refusal."""
    if not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, "Only an administrator moves mailboxes to another server")
    await change_at(dialogue, entry.server, body_of(command), command)


async def _joint(
    dialogue: FrontendImap,
    root: MailboxEntry,
    request: RenameRequest,
    elsewhere: Sequence[MailboxEntry],
) -> bytes:
    """The command for what is on several backends: the root's does it with the others, all or nothing. Raises Refusal where
    it cannot (a Cyrus), UpstreamFailure."""
    upstream = await dialogue.upstream(root.server)
    if CAPABILITY in upstream.capabilities and request.partition is None:
        servers = sorted({row.server for row in elsewhere})
        return format_joint_rename(replace(request, servers=tuple(servers)))
    known = next((row for row in elsewhere if dialogue.may_know_of(row)), None)
    if known is None:
        raise Refusal(Code.CANNOT, "The mailboxes below it are on several servers")
    printable = dialogue.external(known.name).decode("utf-8", "backslashreplace")
    raise Refusal(
        Code.CANNOT, f"{printable} is on {known.server}, not on {root.server}; rename it first"
    )


async def _check_parent_is_there(
    dialogue: FrontendImap, entry: MailboxEntry, new: MailboxName
) -> None:
    """Raises Refusal where mail would have to go to another backend, or a right be known that only another one knows."""
    if is_below(new, entry.name) or dialogue.user.is_admin or owner_of(new) == dialogue.user.user:
        return  # its backend needs no mailbox above to know that they may
    parent = await parent_of_new(dialogue.frontend, new)
    if parent is not None and parent.server != entry.server:
        raise Refusal(
            Code.CANNOT,
            f"{parent.server} has the mailbox above, {entry.server} this one: a RENAME cannot move "
            "mail to another server",
        )


def run_change_acl(dialogue: FrontendImap, command: Command) -> Running:
    """SETACL and DELETEACL (RFC 4314 §3.1, §3.2), at the mailbox."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _change_acl(dialogue, command, scanner.astring())


async def _change_acl(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    patience = Patience(dialogue)
    while not await _change_acl_at_home(dialogue, command, external, patience):
        pass  # it is on its way elsewhere


async def _change_acl_at_home(
    dialogue: FrontendImap, command: Command, external: bytes, patience: Patience
) -> bool:
    """False where it has left before that."""
    entry = await find_or_refer(dialogue, dialogue.name_of(external), command, patience)

    async def has_left(code: Code) -> bool:
        return await has_moved(dialogue, external, entry.server, code, patience)

    reply = await change_at(dialogue, entry.server, body_of(command), command, has_left=has_left)
    return reply is not None
