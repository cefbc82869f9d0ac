"""COMPRESS=DEFLATE (RFC 4978), the same at every role: it is between the client and whom it has connected to."""

from murder.errors import BadSyntax
from murder.serve.client import Running
from murder.serve.imap import ImapDialogue
from murder.wire.imap.command import Command
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner


def run_compress(dialogue: ImapDialogue, command: Command) -> Running:
    """Everything behind the OK is deflated, both ways."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    if scanner.word() != b"DEFLATE":
        raise BadSyntax("COMPRESS takes DEFLATE")
    scanner.end()
    if dialogue.connection.is_deflated:
        text = "Compression is active already"
        dialogue.send(status_line(command.tag, b"NO", text, b"COMPRESSIONACTIVE"))
        return None
    dialogue.deflate(status_line(command.tag, b"OK", "DEFLATE active"))
    return None
