"""Annotations (RFC 5464) in what a backend answers."""

from collections.abc import Sequence

from murder.errors import BadSyntax
from murder.wire.token import Scanner


def values_in(responses: Sequence[bytes]) -> dict[str, bytes]:
    """Values by entry, of METADATA responses without their word; what has none (NIL), or cannot be read, is left out."""
    values: dict[str, bytes] = {}
    for octets in responses:
        scanner = Scanner(octets, 0)
        try:
            scanner.astring()
            scanner.space()
            scanner.open()
            while not scanner.accept(b")"):
                name = scanner.astring().decode("utf-8", "replace")
                scanner.space()
                value = scanner.nstring()
                if value is not None:
                    values[name] = value
                if scanner.peek() == b" ":
                    scanner.space()
        except BadSyntax:
            continue
    return values
