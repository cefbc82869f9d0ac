"""ENABLE's arguments (RFC 5161)."""

from collections.abc import Mapping
from typing import Final

from murder.wire.token import Scanner

MAX_WORDS: Final = 100  # with those that are named again

# What changes a session when it is enabled, as it is written
ENABLEABLE: Final[Mapping[bytes, bytes]] = {
    word.upper(): word
    for word in (b"CONDSTORE", b"IMAP4rev2", b"QRESYNC", b"UIDONLY", b"UTF8=ACCEPT")
}


# enable = "ENABLE" 1*(SP capability)
def parse_enable(scanner: Scanner) -> tuple[bytes, ...]:
    """In capitals, each once."""
    asked: list[bytes] = []
    while True:
        scanner.space()
        asked.append(scanner.word())
        if len(asked) > MAX_WORDS:
            raise scanner.bad(f"at most {MAX_WORDS} capabilities")
        if scanner.at_end():
            break
    scanner.end()
    return tuple(dict.fromkeys(asked))
