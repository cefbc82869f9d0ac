"""POP3's grammar: commands and replies (RFC 1939, RFC 2449, RFC 3206, RFC 5034)."""

from typing import Final

from murder.errors import BadSyntax
from murder.wire.lmtp import clean

OK: Final = b"+OK\r\n"
LISTED: Final = b".\r\n"  # the end of a multi-line response
MAX_NUMBER_DIGITS: Final = 10


def parse_command(line: bytes) -> tuple[bytes, bytes]:
    """`(keyword in upper case, arguments)`."""
    keyword, _, arguments = line.partition(b" ")
    return keyword.upper(), arguments


def parse_numbers(arguments: bytes, least: int, most: int) -> list[int]:
    """So many numbers. Raises BadSyntax."""
    words = arguments.split()
    if not least <= len(words) <= most:
        raise BadSyntax(f"{most if least == most else f'{least} to {most}'} numbers are expected")
    if not all(word.isdigit() and len(word) <= MAX_NUMBER_DIGITS for word in words):
        raise BadSyntax("a number is expected")
    return [int(word) for word in words]


def ok(text: str = "") -> bytes:
    return f"+OK {clean(text)}\r\n".encode() if text else OK


def err(text: str, code: str = "") -> bytes:
    """`-ERR`, with a response code of RFC 2449 §8 if there is one that fits."""
    return f"-ERR {f'[{code}] ' if code else ''}{clean(text)}\r\n".encode("utf-8", "replace")


def listing(first: str, lines: list[bytes]) -> bytes:
    """A multi-line response."""
    return b"".join((ok(first), *(line + b"\r\n" for line in lines), LISTED))
