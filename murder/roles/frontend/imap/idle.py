"""IDLE (RFC 2177): at the backend of the selected mailbox; without one there is nothing to tell but that we wait.

No task exists meanwhile: the backend's news pass to the client as all its answers do, and the client's DONE to the backend.
"""

from murder.errors import BadSyntax
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.response import continuation
from murder.wire.token import Scanner


def run_idle(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 2177: at the selected mailbox's backend, or here where none is selected."""
    Scanner(command.octets, command.start).end()
    selected = dialogue.selected
    if selected is None:
        dialogue.send(continuation(b"idling"))
    else:
        selected.upstream.relay(command.tag, command.octets)  # its "+" and all news pass
        selected.upstream.has_no_hurry = True
    dialogue.session.expect_line()
    dialogue.idle = Idle(dialogue, command)
    return None


class Idle:
    """One IDLE, from its command to the next line of the client, whatever that is."""

    __slots__ = ("_command", "_dialogue", "_upstream")

    def __init__(self, dialogue: FrontendImap, command: Command) -> None:
        self._dialogue = dialogue
        self._command = command
        self._upstream = dialogue.selected.upstream if dialogue.selected else None

    def done(self, line: bytes) -> None:
        """The backend says what it thinks of the line."""
        self.over()
        if self._upstream is not None:
            self._upstream.has_no_hurry = False
            self._upstream.write(line + b"\r\n")
        elif line.strip(b" \t").upper() != b"DONE":
            self._dialogue.failed(self._command, BadSyntax("DONE ends IDLE"))
        else:
            self._dialogue.send_ok(self._command)

    def moved(self, upstream: ImapUpstream) -> None:
        """It goes on there."""
        self._upstream = upstream

    def over(self) -> None:
        """The client's next line is a command again."""
        self._dialogue.session.expect_line(False)
        self._dialogue.idle = None
