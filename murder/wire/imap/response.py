"""IMAP status responses, and the one place where an exception becomes one.

RFC 3501 §7.1, RFC 5530 (response codes). Text is ASCII and never holds CR or LF.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure

SHORT_TEXT: Final = 60  # letters of what is said again and again, and remembered
LASTS: Final = b"* OK [INPROGRESS"  # RFC 9585: with, or without, how far the command has come
MAX_TEXT_OCTETS: Final = 2000  # of what is said to people: it may name what the client has sent
_PRINTABLE: Final = bytes(octet if 0x20 <= octet < 0x7F else 0x3F for octet in range(256))


@dataclass(frozen=True, slots=True)
class Status:
    """A status response without its tag. `code` is the inside of the brackets, b"" for none."""

    word: bytes  # OK, NO, BAD, BYE, PREAUTH
    code: bytes
    text: str

    def line(self, tag: bytes = b"*") -> bytes:
        return status_line(tag, self.word, self.text, self.code)


def clean(text: str) -> bytes:
    """As resp-text: ASCII, no line ends, never empty, and never beginning like a response code."""
    octets = text.encode("ascii", "replace").translate(_PRINTABLE, b"\r\n\x00").strip()
    return octets.lstrip(b"[")[:MAX_TEXT_OCTETS] or b"."


_cleaned: Final = lru_cache(maxsize=256)(clean)


def status_line(tag: bytes, word: bytes, text: str, code: bytes = b"") -> bytes:
    """`tag SP word SP [code] text CRLF`."""
    said = _cleaned(text) if len(text) <= SHORT_TEXT else clean(text)
    if code:
        return b"%s %s [%s] %s\r\n" % (tag, word, code, said)
    return b"%s %s %s\r\n" % (tag, word, said)


def untagged(content: bytes) -> bytes:
    """`* content CRLF`: data that is already formatted."""
    return b"* " + content + b"\r\n"


def continuation(text: bytes = b"Ready") -> bytes:
    """`+ text CRLF`, RFC 3501 §7.5."""
    return b"+ " + text + b"\r\n"


def bye(text: str, code: bytes = b"") -> bytes:
    return status_line(b"*", b"BYE", text, code)


def status_for(error: BaseException) -> Status:
    """The reply that an error deserves. Only here do errors become IMAP."""
    match error:
        case BadSyntax():
            code = error.code.value if error.code is not None else "CLIENTBUG"
            return Status(b"BAD", code.encode(), str(error))
        case Refusal(code=Code.NONE):
            return Status(b"NO", b"", error.text)
        case Refusal():
            detail = f" {error.detail}" if error.detail else ""
            return Status(b"NO", f"{error.code.value}{detail}".encode(), error.text)
        case UpstreamFailure():
            return Status(
                b"NO",
                b"UNAVAILABLE",
                f"Not available now: {error.server}: {error.kind.reply} ({error.kind.value})",
            )
        case Misuse():
            return Status(b"NO", b"SERVERBUG", "Internal error; the log has it")
        case _:
            return Status(b"NO", b"SERVERBUG", "Internal error; the log has it")
