"""What is done to a whole hierarchy, which may lie on several backends, as commands: XDELETE and XUNDELETE of frontends and
operators (XRENAME is beside RENAME), XPART of the other backends, XSETTLE of an operator where the server of the root will
never be there again. What they do: `backend.renames`.
"""

from collections.abc import Sequence

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.acl import DELETE_MAILBOX
from murder.model.name import MailboxName, before_deletion, deleted_name, is_below, is_deleted
from murder.net.frames import FrameChannel
from murder.roles.backend.changes.news import Kind
from murder.roles.backend.hierarchy.intent import Stage
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.xfer import need_admin
from murder.roles.backend.renames.coordinator import Wish
from murder.roles.backend.renames.tree import Tree, moment_of_deletion
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.mailbox import parse_tree_request
from murder.wire.nodes.rename_words import Act, is_rename_id
from murder.wire.token import Scanner

PEER_TIMEOUT_S = 120.0  # no word: the peer is gone, and not cut off


# xdelete = "XDELETE" SP mailbox SP "(" [astring *(SP astring)] ")" ; ours
def run_xdelete(dialogue: BackendImap, command: Command) -> Running:
    """With all below it, wherever it lies: the other servers are named for a backend whose master cannot tell them."""
    request = parse_tree_request(Scanner(command.octets, command.start))
    need_admin(dialogue, "deletes a whole hierarchy")
    name = dialogue.name_of(request.mailbox)
    dialogue.backend.mailboxes.require(name, dialogue.user, DELETE_MAILBOX)
    return delete_tree(dialogue, command, name, request.servers)


async def delete_tree(
    dialogue: BackendImap, command: Command, name: MailboxName, named: Sequence[str] = ()
) -> None:
    """All of it or nothing; at once, or by putting it to rest under DELETED until it expires. Raises Refusal,
    UpstreamFailure."""
    master = dialogue.renames.coordinator.master
    now = await moment_of_deletion(dialogue.backend, master, name)
    await _change_tree(dialogue, command, Tree(Act.DELETE, name, deleted_name(name, now)), named)


# xundelete = "XUNDELETE" SP mailbox SP "(" [astring *(SP astring)] ")" ; ours
def run_xundelete(dialogue: BackendImap, command: Command) -> Running:
    """Of a mailbox as it rests: it comes back with all that was deleted with it."""
    request = parse_tree_request(Scanner(command.octets, command.start))
    need_admin(dialogue, "brings back what was deleted")
    name = dialogue.name_of(request.mailbox)
    before = before_deletion(name) if is_deleted(name) else None
    if before is None:
        raise Refusal(Code.CANNOT, "This is not the name of the deleted mailbox")
    dialogue.backend.mailboxes.require(name, dialogue.user, DELETE_MAILBOX)
    return _change_tree(dialogue, command, Tree(Act.UNDELETE, name, before[0]), request.servers)


async def _change_tree(
    dialogue: BackendImap, command: Command, tree: Tree, named: Sequence[str]
) -> None:
    backend, login = dialogue.backend, dialogue.user
    coordinator = dialogue.renames.coordinator
    moves = await tree.moves_at(backend)
    servers = await coordinator.servers_below(tree, named)
    causes = [
        (Kind.DELETED, old) if tree.act is Act.DELETE else (Kind.CREATED, new) for old, new in moves
    ]
    with dialogue.causing(*causes):
        late = await coordinator.rename(Wish(tree, moves, servers, login.user, login.is_admin))
    if tree.act is Act.DELETE and dialogue.selected is not None:
        if is_below(dialogue.selected.name, tree.old):
            dialogue.close_deleted()
    await dialogue.finish(command, told_of(late))


def told_of(late: Sequence[str]) -> str:
    """Of what is decided, and not done everywhere yet."""
    if not late:
        return "Completed"
    return f"Completed; what is at {', '.join(late)} follows as soon as it can"


# xpart = "XPART"
def run_xpart(dialogue: BackendImap, command: Command) -> Running:
    """The peer, a backend by its certificate, sends frames from here on."""
    Scanner(command.octets, command.start).end()
    certificate = dialogue.connection.certificate
    if certificate is None or "backend" not in certificate.roles:
        raise Refusal(Code.NO_PERMISSION, "Only another backend of this murder, by its certificate")
    return _serve(dialogue, command, certificate.name)


async def _serve(dialogue: BackendImap, command: Command, server: str) -> None:
    dialogue.leave_imap()  # it speaks only when it has read the OK
    dialogue.send_ok(command, "Frames now")
    channel = FrameChannel(dialogue.connection, server, PEER_TIMEOUT_S)
    try:
        await dialogue.renames.parts.serve(channel, server)
    except UpstreamFailure as failure:
        dialogue.log.info("rename.peer_gone", backend=server, problem=str(failure))
    finally:
        dialogue.connection.abort()  # it speaks frames now: no IMAP reply would be understood


# xsettle = "XSETTLE" SP id SP ("COMMIT" / "ABORT")
def run_xsettle(dialogue: BackendImap, command: Command) -> Running:
    """End a part that is in doubt here, as `murder ctl conflicts` shows it."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    rename_id = scanner.astring().decode("utf-8", "replace")
    scanner.space()
    word = scanner.word().upper()
    scanner.end()
    need_admin(dialogue, "ends a RENAME by hand")
    stages = {b"COMMIT": Stage.COMMIT, b"ABORT": Stage.ABORT}
    if word not in stages:
        raise BadSyntax("XSETTLE takes the id of a RENAME, and COMMIT or ABORT")
    if not is_rename_id(rename_id):
        raise Refusal(Code.NONEXISTENT, "The id of a RENAME is letters and digits")
    return _settle(dialogue, command, rename_id, stages[word])


async def _settle(dialogue: BackendImap, command: Command, rename_id: str, stage: Stage) -> None:
    await dialogue.renames.decide_by_hand(rename_id, stage)
    await dialogue.finish(command)
