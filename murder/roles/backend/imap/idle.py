"""IDLE (RFC 2177): the client is told of changes as they happen, until it says DONE."""

from murder.errors import BadSyntax
from murder.roles.backend.imap.dialogue import BackendImap
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.response import continuation
from murder.wire.token import Scanner


def run_idle(dialogue: BackendImap, command: Command) -> Running:
    """IDLE (RFC 2177): until DONE, or until the session has waited for too long."""
    Scanner(command.octets, command.start).end()
    return _Idle(dialogue, command).begin()


class _Idle:
    """One IDLE, from its command to DONE."""

    __slots__ = ("_command", "_dialogue")

    def __init__(self, dialogue: BackendImap, command: Command) -> None:
        self._dialogue = dialogue
        self._command = command

    def begin(self) -> Running:
        dialogue = self._dialogue
        dialogue.session.expect_line()
        dialogue.on_line = self._done
        dialogue.send(continuation(b"idling"))
        dialogue.listen(idling=True)
        return None

    def _done(self, line: bytes) -> Running:
        dialogue = self._dialogue
        dialogue.session.expect_line(False)
        dialogue.on_line = None
        dialogue.listen(idling=False)
        if line.strip(b" \t").upper() != b"DONE":
            dialogue.failed(self._command, BadSyntax("DONE ends IDLE"))  # it has ended all the same
            return None
        return dialogue.conclude(self._command)
