"""Messages of very many parts, and of parts very deep: cut exactly, told in one line, found again."""

from murder.mime.section import octets_of
from murder.mime.structure import parse_structure
from murder.mime.summary import dump_structure
from murder.model.query.fetch import Section, SectionText
from murder.wire.imap.mail.body import format_body_structure

PARTS = 10_000


def test_ten_thousand_parts() -> None:
    body = b"".join(b"--b\r\nX-Part: %d\r\n\r\npart %d\r\n" % (n, n) for n in range(1, PARTS + 1))
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body + b"--b--\r\n"
    root = parse_structure(octets)
    assert len(root.children) == PARTS
    view = memoryview(octets)
    for number in (1, 2, 4999, PARTS):
        assert octets_of(view, root, Section((number,))) == b"part %d" % number
        header = octets_of(view, root, Section((number,), SectionText.MIME))
        assert header == b"X-Part: %d\r\n\r\n" % number
    assert octets_of(view, root, Section((PARTS + 1,))) is None
    assert format_body_structure(root, extended=True).count(b'"TEXT"') == PARTS
    assert dump_structure(root) is None  # too large to be kept


def test_boundaries_that_begin_each_other() -> None:
    """Each nested multipart's boundary is the one before with a letter more; lines of all of them come in between."""
    levels = 60
    names = [b"b" * (level + 1) for level in range(levels)]
    opening = b"".join(
        b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n--%s\r\n' % (name, name)
        for name in names
    )
    closing = b"".join(b"\r\n--%s--" % name for name in reversed(names))
    root = parse_structure(opening + b"\r\ndeepest" + closing)
    part, depth = root, 0
    while part.is_multipart:
        assert len(part.children) == 1
        part, depth = part.children[0], depth + 1
    assert depth == levels
    assert part.size == len(b"deepest")
