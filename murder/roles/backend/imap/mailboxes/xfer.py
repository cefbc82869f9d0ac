"""XFER, as Cyrus has it, and XFERS beside it: mailboxes move to another backend; XTAKE, by which the other takes them.

`XFER mailbox server [partition]` answers `* OK USER name` (or MAILBOX) and a tagged OK when all is over; meanwhile
`* OK [INPROGRESS (tag done total)]` (RFC 9585). Administrators only, and only those who came themselves.
"""

from murder.auth.gate import OPERATOR_ROLE
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.entry import parse_location
from murder.model.name import MailboxName, display, is_inbox, owner_of
from murder.net.frames import FrameChannel
from murder.net.octets import OctetChannel
from murder.net.turns import in_turns
from murder.roles.backend.backups import Reading
from murder.roles.backend.changes.events import MasterMayDiffer
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.moves.arriving import Restorer
from murder.roles.backend.moves.cyrus_peer import CyrusPeer
from murder.roles.backend.moves.journal import FROM_BACKUP, Journal, Move, Side, State, record_of
from murder.roles.backend.moves.mover import Mover
from murder.roles.backend.traced import Unattended
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.response import status_line
from murder.wire.nodes.move_words import MoveProgress, format_answer
from murder.wire.token import Scanner

TELL_EVERY_S = 0.5  # how often progress is told
PEER_TIMEOUT_S = 3600.0  # a source that pauses (a limit on its octets) is not cut off


def need_admin(dialogue: BackendImap, does: str = "moves mailboxes between servers") -> None:
    """Raises Refusal(NO_PERMISSION)."""
    if not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, f"Only an administrator {does}")


# xfer = "XFER" SP mailbox SP server [SP partition]; server may be `server!partition`
def run_xfer(dialogue: BackendImap, command: Command) -> Running:
    """XFER, as Cyrus has it, for administrators: a mailbox with all below it moves to another backend."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    location = parse_location(scanner.astring())
    partition = location.partition
    if not scanner.at_end():
        scanner.space()
        partition = scanner.astring().decode("utf-8", "surrogateescape")
    scanner.end()
    need_admin(dialogue)
    return move_away(dialogue, command, dialogue.name_of(mailbox), location.server, partition)


async def move_away(
    dialogue: BackendImap, command: Command, name: MailboxName, server: str, partition: str
) -> None:
    """Carry out XFER, or a RENAME with another server's location."""
    told_at = 0.0
    total = await _count(dialogue, name)

    def tell(move: Move) -> None:
        nonlocal told_at
        now = dialogue.loop.time()
        if now - told_at < TELL_EVERY_S and move.state is State.COPYING:
            return
        told_at = now
        facts = (move.state.value, move.id, move.messages, move.octets, move.problem)
        dialogue.send(MoveProgress(command.tag, total, *facts).format())

    seen = display(dialogue.external(name))  # as Cyrus has it
    what = f"USER {owner_of(name)}" if is_inbox(name) else f"MAILBOX {seen}"
    try:
        await dialogue.mover.move(name, server, partition, dialogue.user.user, tell)
    except (Refusal, UpstreamFailure) as problem:
        text = (
            str(problem)
            if isinstance(problem, UpstreamFailure)
            else dialogue.status_for(problem).text
        )
        dialogue.send(status_line(b"*", b"NO", f"{what} ({text})"))
        raise
    dialogue.send(status_line(b"*", b"OK", what))
    await dialogue.finish(command)


async def _count(dialogue: BackendImap, root: MailboxName) -> int:
    """How many messages a tree has now."""
    backend = dialogue.backend
    total = 0
    below = [head.name async for head in in_turns(backend.mailboxes.below(root))]
    async for name in in_turns((root, *below)):
        try:
            mailbox = await backend.store.open(name, "")
        except Refusal:
            continue
        total += (await mailbox.status()).messages
        mailbox.close()
    return total


# xfers = "XFERS" SP ("LIST" / "SHOW" / "RESUME" / "ABORT" / "FORGET" / "VERIFY") [SP id]
# "LETGO" is what older programs of operators say for FORGET.
def run_xfers(dialogue: BackendImap, command: Command) -> Running:
    """XFERS, ours, for administrators: the moves of this backend told, resumed, given up, forgotten, compared."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    verb = scanner.word().upper()
    move_id = ""
    if not scanner.at_end():
        scanner.space()
        move_id = scanner.astring().decode("utf-8", "replace")
    scanner.end()
    need_admin(dialogue)
    if verb not in (b"LIST", b"SHOW", b"VERIFY"):
        facts = {**dialogue.log_facts(), "arguments": f"{verb.decode()} {move_id}"}
        dialogue.service.audit.note("XFERS", facts)
    return _xfers(dialogue, command, verb, move_id)


async def _xfers(dialogue: BackendImap, command: Command, verb: bytes, move_id: str) -> None:
    mover = dialogue.mover
    if verb == b"VERIFY":  # a line for each mailbox, as soon as it is compared
        async for compared in mover.verify(move_id):
            dialogue.send(format_answer(compared.shown()))
        return await dialogue.finish(command)
    match verb:
        case b"LIST":
            moves = list(mover.journal.moves())
        case b"SHOW":
            moves = [known for known in mover.journal.moves() if known.id == move_id]
        case b"RESUME":
            moves = [await _resume(mover, move_id)]
        case b"ABORT":
            moves = [await _abort(mover, move_id)]
        case b"FORGET" | b"LETGO":
            moves = [await _forget(mover.journal, dialogue, move_id)]
        case _:
            raise Refusal(Code.CANNOT, f"XFERS {display(verb)} is unknown")
    for move in moves:
        dialogue.send(format_answer(record_of(move)))
    await dialogue.finish(command)


async def _resume(mover: Mover, move_id: str) -> Move:
    arriving = mover.journal.find(Side.IN, move_id)
    if arriving is not None and mover.journal.find(Side.OUT, move_id) is None:
        return await mover.show_arriving(arriving)
    return await mover.resume(move_id)


async def _abort(mover: Mover, move_id: str) -> Move:
    arriving = mover.journal.find(Side.IN, move_id)
    if arriving is not None and mover.journal.find(Side.OUT, move_id) is None:
        return await mover.end_arriving(arriving)
    return await mover.abort(move_id)


async def _forget(journal: Journal, dialogue: BackendImap, move_id: str) -> Move:
    move = journal.find(Side.OUT, move_id)
    if move is not None and move.owes_abort:
        return await journal.save(move, owes_abort=False)
    if move is None or move.state is not State.DONE:
        raise Refusal(Code.CANNOT, f"No move {move_id} keeps anything here")
    return await dialogue.mover.forget(move)


# xcompare = "XCOMPARE" SP mailbox
def run_xcompare(dialogue: BackendImap, command: Command) -> Running:
    """Compare this mailbox with the master's row again, as after a reconnect (`murder ctl list check --fix`)."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    name = dialogue.name_of(scanner.astring())
    scanner.end()
    need_admin(dialogue)
    dialogue.backend.events.publish(MasterMayDiffer((name,)))
    return dialogue.conclude(command)


# xtake = "XTAKE"
def run_xtake(dialogue: BackendImap, command: Command) -> Running:
    """The peer, a backend by its certificate, sends frames from here on."""
    Scanner(command.octets, command.start).end()
    certificate = dialogue.connection.certificate
    if certificate is None or not {"backend", OPERATOR_ROLE} & certificate.roles:
        raise Refusal(Code.NO_PERMISSION, "Only another backend of this murder, by its certificate")
    if "backend" not in certificate.roles:  # what a backup has comes back
        need_operator(dialogue)
        return _take(dialogue, command, FROM_BACKUP)
    return _take(dialogue, command, certificate.name)


def need_operator(dialogue: BackendImap) -> None:
    """Whoever reads or writes everybody's mail shows an operator's certificate: a password is not enough. Raises Refusal."""
    certificate = dialogue.connection.certificate
    is_operator = certificate is not None and OPERATOR_ROLE in certificate.roles
    if not is_operator or not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, "Only an operator of this murder, by their certificate")


# xbackup = "XBACKUP"
def run_xbackup(dialogue: BackendImap, command: Command) -> Running:
    """An operator's program asks in frames from here on."""
    Scanner(command.octets, command.start).end()
    need_operator(dialogue)
    dialogue.service.audit.note("XBACKUP", dialogue.log_facts())
    return _read_all(dialogue, command)


async def _read_all(dialogue: BackendImap, command: Command) -> None:
    dialogue.leave_imap()  # it speaks only when it has read the OK
    channel = FrameChannel(dialogue.connection, "a backup", PEER_TIMEOUT_S)
    reading = Reading(dialogue.backend, channel)
    dialogue.send_ok(command, "Frames now")
    try:
        await reading.serve()
    except (UpstreamFailure, BadSyntax) as failure:
        dialogue.log.info("backup.reader_gone", problem=str(failure))
    finally:
        dialogue.connection.abort()  # it speaks frames now: no IMAP reply would be understood


async def _take(dialogue: BackendImap, command: Command, server: str) -> None:
    dialogue.leave_imap()  # it speaks only when it has read the OK
    dialogue.send_ok(command, "Frames now")
    channel = FrameChannel(dialogue.connection, server, PEER_TIMEOUT_S)
    facts = dialogue.log_facts()

    def audit(what: str) -> None:
        dialogue.service.audit.note("RESTORE", {**facts, "arguments": what})

    doer = Unattended(dialogue.service.mail_log, facts)
    restorer = Restorer(audit, doer) if server == FROM_BACKUP else None
    try:
        await dialogue.mover.take(channel, server, restorer)
    except (UpstreamFailure, Refusal, BadSyntax) as failure:
        dialogue.log.info("move.peer_gone", backend=server, problem=str(failure))
    finally:
        dialogue.connection.abort()  # it speaks frames now: no IMAP reply would be understood


# --- from a Cyrus backend, in its replication protocol


def need_cyrus(dialogue: BackendImap) -> None:
    """Raises Refusal where this is no Cyrus backend that may send mailboxes here."""
    if not dialogue.takes_from_cyrus:
        raise Refusal(
            Code.NO_PERMISSION, "Only a Cyrus backend that [backend] takes_xfer_from names"
        )


# sync = ("SYNCGET" / "SYNCAPPLY") SP word SP value / "SYNCRESTART"
def run_sync(dialogue: BackendImap, command: Command) -> Running:
    """The peer speaks Cyrus' replication protocol from here on, until it says LOGOUT."""
    need_cyrus(dialogue)
    return _sync(dialogue, command)


async def _sync(dialogue: BackendImap, command: Command) -> None:
    rest = dialogue.leave_imap()
    connection = dialogue.connection
    channel = OctetChannel(connection, connection.peer, PEER_TIMEOUT_S)
    arriving = dialogue.mover.take_from_cyrus(connection.peer)
    try:
        await CyrusPeer(channel, arriving).serve(command.octets.rstrip(b"\r\n"), rest)
    except (UpstreamFailure, BadSyntax) as failure:
        dialogue.log.info("move.peer_gone", backend=connection.peer, problem=str(failure))
        connection.abort()
    finally:
        await arriving.ended()
        channel.give_back()


# mupdatepush = "MUPDATEPUSH" SP mailbox
def run_mupdatepush(dialogue: BackendImap, command: Command) -> Running:
    """A Cyrus backend that has sent a mailbox wants it to be shown here, and has it no more."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    external = scanner.astring()
    scanner.end()
    need_cyrus(dialogue)
    return _push(dialogue, command, external)


async def _push(dialogue: BackendImap, command: Command, external: bytes) -> None:
    await dialogue.mover.take_from_cyrus(dialogue.connection.peer).push(external)
    await dialogue.finish(command)
