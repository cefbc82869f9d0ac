"""ENABLE's arguments (RFC 5161)."""

from murder.wire.token import Scanner


# enable = "ENABLE" 1*(SP capability)
def parse_enable(scanner: Scanner) -> tuple[bytes, ...]:
    """In capitals, each once."""
    asked: dict[bytes, None] = {}
    while True:
        scanner.space()
        asked[scanner.word()] = None
        if scanner.at_end():
            break
    scanner.end()
    return tuple(asked)
