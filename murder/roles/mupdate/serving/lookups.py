"""FIND, which frontends ask of a master before nearly everything: its answer, and where it stands alone in what has come,
that in few steps. `master` decides whether it may."""

from typing import Final

from murder.model.name import collation_key
from murder.roles.mupdate.serving.stream import format_rows
from murder.wire.mupdate import PLAIN_FIND

FIND_WITHIN: Final = 64  # of what has come: a tag is shorter


def plain_find(data: bytes) -> tuple[bytes, bytes] | None:
    """Tag and name of a FIND in its commonest spelling; None of whatever else has come."""
    plain = PLAIN_FIND.fullmatch(data)
    if plain is None:
        return None
    tag, size, literal, quoted = plain.groups()
    if literal is not None and int(size) != len(literal):
        return None
    return tag, quoted if literal is None else literal


def format_found(tag: bytes, name: bytes, row: bytes | None) -> bytes:
    """The answer of a name and its row, None for none."""
    ok = b'%b OK "Search completed"\r\n' % tag
    return ok if row is None else format_rows(tag, [(collation_key(name), row)]) + ok
