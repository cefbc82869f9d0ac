"""RENAME of a hierarchy that lies on several backends, as commands: XRENAME of frontends and operators, XPART of the other
backends, XSETTLE of an operator where the server of the root will never be there again. What they do: `backend.renames`.
"""

from murder.backend.hierarchy.intent import Stage
from murder.backend.imap.dialogue import BackendImap
from murder.backend.imap.mailboxes.xfer import need_admin
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.net.frames import FrameChannel
from murder.serve.imap import Running
from murder.wire.imap.command import Command
from murder.wire.rename_words import is_rename_id
from murder.wire.token import Scanner

PEER_TIMEOUT_S = 120.0  # no word: the peer is gone, and not cut off


# xpart = "XPART"
def run_xpart(dialogue: BackendImap, command: Command) -> Running:
    """The peer, a backend by its certificate, sends frames from here on."""
    Scanner(command.octets, command.start).end()
    certificate = dialogue.connection.certificate
    if certificate is None or "backend" not in certificate.roles:
        raise Refusal(Code.NO_PERMISSION, "Only another backend of this murder, by its certificate")
    return _serve(dialogue, command, certificate.name)


async def _serve(dialogue: BackendImap, command: Command, server: str) -> None:
    dialogue.session.take_rest()  # it speaks only when it has read the OK
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
