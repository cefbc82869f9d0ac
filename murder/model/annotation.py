"""Mailbox and server annotations (RFC 5464, METADATA): names, depth, limits. Knows no octets of a protocol."""

from enum import Enum
from typing import Final

PRIVATE: Final = "/private/"
SHARED: Final = "/shared/"
LASTPOP: Final = "/shared/vendor/cmu/cyrus-imapd/lastpop"
SPECIAL_USE: Final = "/private/specialuse"  # RFC 6154 §4
SITE_SCRIPTS: Final = "/shared/vendor/murder/sieve"  # of a backend, for administrators; read only
SHARED_SCRIPT: Final = "/shared/vendor/cmu/cyrus-imapd/sieve"  # of a shared mailbox: a site's script, as Cyrus calls it

MAX_ENTRY_OCTETS: Final = 1024
MAX_ENTRIES_OF_COMMAND: Final = 1000


class Depth(Enum):
    """How far below a name GETMETADATA looks (RFC 5464 §4.2.2)."""

    ZERO = "0"
    ONE = "1"
    INFINITY = "infinity"


def is_entry_name(name: str) -> bool:
    """Whether this can be an entry: in lower case, below /private or /shared, no wildcard, no empty level."""
    return (
        name.startswith((PRIVATE, SHARED))
        and len(name) <= MAX_ENTRY_OCTETS
        and not name.endswith("/")
        and "//" not in name
        and all(" " < letter < "\x7f" and letter not in '%*"\\' for letter in name)
    )


def site_script_entry(name: str) -> str:
    """The entry of a script in the site's folder, below SITE_SCRIPTS: entries have no capitals and few signs."""
    return f"{SITE_SCRIPTS}/named/{name.encode('utf-8', 'surrogateescape').hex()}"


def is_within(name: str, asked: str, depth: Depth) -> bool:
    """Whether an entry is told to who asked for `asked` with this depth."""
    if name == asked:
        return True
    if depth is Depth.ZERO or not name.startswith(asked.rstrip("/") + "/"):
        return False
    return depth is Depth.INFINITY or "/" not in name[len(asked.rstrip("/")) + 1 :]
