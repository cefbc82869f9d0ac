"""Messages with NUL as they are told to those who can be sent none."""

from hypothesis import given
from hypothesis import strategies as st

from murder.mime.nul import has_nul
from murder.mime.section import octets_of
from murder.mime.structure import parse_structure
from murder.model.query.fetch import Section
from tests.rooms.mime.whole import decoded_octets, without_nul

LEAVES = st.tuples(
    st.sampled_from([b"", b"Content-Transfer-Encoding: binary\r\n", b"Content-Type: a/b\r\n"]),
    st.text("ab\x00 \n", max_size=200).map(lambda text: text.replace("\n", "\r\n").encode()),
)


@given(st.lists(LEAVES, max_size=5), st.booleans())
def test_all_octets_are_there_and_none_is_nul(
    leaves: list[tuple[bytes, bytes]], embedded: bool
) -> None:
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    if embedded:
        octets = (
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets
        )
    octets += b"".join(b"--b\r\n%b\r\n%b\r\n" % leaf for leaf in leaves) + b"--b--\r\n"
    root = parse_structure(octets)
    told = without_nul(octets, root)
    assert not has_nul(memoryview(told))
    again = parse_structure(told)
    for number, (_, body) in enumerate(leaves, 1):
        path = (1, number) if embedded else (number,)
        before = decoded_octets(octets, root, path)
        assert before == body
        after = decoded_octets(told, again, path)
        assert after == body
    if b"\x00" not in octets:
        assert told == octets


def test_headers_and_what_is_between_parts_have_another_octet() -> None:
    octets = b"Subject: a\x00b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npre\x00\r\n--b\r\n\r\nx\r\n--b--\r\n"
    told = without_nul(octets, parse_structure(octets))
    assert told == octets.replace(b"\x00", b"\x80")
    odd = b"Content-Transfer-Encoding: x-odd\r\n\r\na\x00b"
    assert without_nul(odd, parse_structure(odd)).endswith(b"a\x80b")


def test_a_message_that_is_one_part() -> None:
    octets = b"Subject: x\r\n\r\na\x00b\r\n"
    told = without_nul(octets, parse_structure(octets))
    assert told == b"Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\nYQBiDQo=\r\n"
    whole = octets_of(memoryview(told), parse_structure(told), Section((1,)))
    assert whole is not None and bytes(whole) == b"YQBiDQo=\r\n"
