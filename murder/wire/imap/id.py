"""ID's arguments (RFC 2971)."""

from typing import Final

from murder.errors import BadSyntax
from murder.wire.token import Scanner

ORIGIN_FIELD: Final = "x-originating-ip"
PORT_FIELD: Final = "x-originating-port"
SESSION_FIELD: Final = "x-session-id"
HOPS_FIELD: Final = "x-proxy-ttl"
"""What a proxy tells of its client, by the names that Dovecot has given it: address and port, what it calls the session, and
through how many more proxies that may go."""
PIPE_FIELD: Final = "x-pipe"
"""Of a proxy that passes on all that its client says: the server takes it for the client's own words from the login on."""
MAX_ID_FIELDS: Final = 30  # RFC 2971 §3.3
MAX_ID_OCTETS: Final = 1024  # of a value, RFC 2971 §3.3: of what is longer the rest is not kept


def parse_id(scanner: Scanner) -> dict[str, str]:
    """`id = "ID" SP ("NIL" / "(" *(string SP nstring) ")")`; names in lower case."""
    fields: dict[str, str] = {}
    scanner.space()
    if scanner.accept_word(b"NIL"):
        scanner.end()
        return fields
    scanner.open()
    words = 0
    while not scanner.accept(b")"):
        words += 1
        name = scanner.string()[:MAX_ID_OCTETS].decode("utf-8", "replace").lower()
        scanner.space()
        value = (scanner.nstring() or b"")[:MAX_ID_OCTETS]
        if words > MAX_ID_FIELDS:
            raise BadSyntax(f"ID takes {MAX_ID_FIELDS} fields")
        fields[name] = value.decode("utf-8", "replace")
        if scanner.peek() == b" ":
            scanner.space()
    scanner.end()
    return fields
