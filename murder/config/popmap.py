"""A table of users and their servers, in the form of Perdition's popmap: `key:[user@]server[:port]`.

A key is a user, or `@domain` for all of one. Lines that are empty or begin with `#` say nothing.
"""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MOST_SHOWN = 3  # lines that are wrong


class Place(NamedTuple):
    """Where a session goes: `port` 0 is the protocol's, `user` "" the name they came with."""

    server: str
    port: int = 0
    user: str = ""


def read_popmap(file: Path) -> dict[str, Place]:
    """Raises OSError, and ValueError with what is wrong in which lines."""
    try:
        return parse_popmap(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: {error}") from None


def parse_popmap(text: str) -> dict[str, Place]:
    """Raises ValueError. Of two lines for one key the first counts, as for Perdition."""
    by_key: dict[str, Place] = {}
    places: dict[str, Place] = {}  # many users, few servers
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, colon, where = stripped.partition(":")
        where = where.strip()
        try:
            place = places.get(where) or places.setdefault(where, parse_place(where))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
            continue
        if not colon or not key.strip():
            wrong.append(f"line {number}: write `user:server`")
            continue
        by_key.setdefault(key.strip(), place)
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise ValueError("; ".join(wrong[:MOST_SHOWN]) + more)
    return by_key


def parse_place(text: str) -> Place:
    """`[user@]server[:port]`; an IPv6 address in brackets. Raises ValueError."""
    user, at, where = text.rpartition("@")
    if at and not user:
        raise ValueError(f"no user before the @ in {text!r}")
    if where.startswith("["):
        server, _, tail = where[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        server, _, port = where.partition(":")
        if ":" in port:
            raise ValueError(f"write an IPv6 address in brackets: [{where}]")
    if not server or any(character.isspace() for character in text):
        raise ValueError(f"write `server` or `server:port` behind the colon, not {text!r}")
    return Place(server, _port(port) if port else 0, user)


def _port(text: str) -> int:
    """A number, or a name of /etc/services."""
    if text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise ValueError(f"{text!r} is no port") from None


def place_in(table: Mapping[str, Place], user: str) -> Place | None:
    """Of the user, or of their domain."""
    place = table.get(user)
    if place is None and "@" in user:
        place = table.get("@" + user.rpartition("@")[2])
    return place


def servers_in(table: Mapping[str, Place]) -> Iterator[str]:
    """Each once."""
    yield from dict.fromkeys(place.server for place in table.values())
