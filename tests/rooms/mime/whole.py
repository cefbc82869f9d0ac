"""What the room gives in pieces, at once: for small messages, whose whole a test compares."""

from murder.mime.decode import decoded_pieces
from murder.mime.nul import told_pieces
from murder.mime.section import encoded_part
from murder.model.part import Part


def decode_transfer(body: bytes, encoding: bytes) -> bytes | None:
    """The body without its encoding, or None where that is not known."""
    pieces = decoded_pieces(body, encoding)
    return None if pieces is None else b"".join(pieces)


def without_nul(octets: bytes, root: Part) -> bytes:
    """The message as it is told to who can be sent no NUL."""
    return b"".join(told_pieces(memoryview(octets), root))


def decoded_octets(octets: bytes, root: Part, path: tuple[int, ...]) -> bytes | None:
    """BINARY[path]."""
    part = encoded_part(memoryview(octets), root, path)
    if part is None or not part.encoding:
        return None if part is None else bytes(part.body)
    return b"".join(part.pieces())
