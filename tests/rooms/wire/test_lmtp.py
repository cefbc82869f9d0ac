"""LMTP's grammar, by tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.wire.lmtp import (
    Recipient,
    code_of,
    format_path,
    format_saved,
    format_xclient,
    parse_bdat,
    parse_envelope,
    parse_recipient,
    parse_saved,
    parse_xclient,
    reply,
)


@pytest.mark.parametrize(
    ("arguments", "path", "parameters"),
    [
        (b"FROM:<>", b"", {}),
        (b"from: <a@b> size=12 BODY=8BITMIME", b"a@b", {b"SIZE": b"12", b"BODY": b"8BITMIME"}),
        (b"FROM:<@r1,@r2:a@b> SMTPUTF8", b"a@b", {b"SMTPUTF8": b""}),
        (b'FROM:<"a b>"@c>', b'"a b>"@c', {}),
    ],
)
def test_paths_are_read(arguments: bytes, path: bytes, parameters: dict[bytes, bytes]) -> None:
    envelope = parse_envelope(arguments, b"FROM:")
    assert (envelope.path, envelope.parameters) == (path, parameters)


@pytest.mark.parametrize(
    "arguments", [b"", b"FROM", b"FROM:a@b", b"FROM:<a", b"FROM:<a b>", b"FROM:<a>x", b"TO:<a>"]
)
def test_what_is_no_path_is_refused(arguments: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_envelope(arguments, b"FROM:")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"ana", (b"ana", b"", b"")),
        (b"ana@Example.ORG", (b"ana", b"", b"example.org")),
        (b"ana+lists/x+y@example.org", (b"ana", b"lists/x+y", b"example.org")),
        (b"+shared@example.org", (b"", b"shared", b"example.org")),
        (b'"a@\\"b+c d"@e', (b'a@"b', b"c d", b"e")),
    ],
)
def test_recipients_are_taken_apart(path: bytes, parts: tuple[bytes, bytes, bytes]) -> None:
    assert parse_recipient(path) == Recipient(*parts)


@pytest.mark.parametrize("arguments", [b"", b"x", b"-1", b"1 LAST LAST", b"1 FIRST", b"9" * 13])
def test_bdat_takes_a_size_and_maybe_last(arguments: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_bdat(arguments)
    assert parse_bdat(b"12 LAST") == (12, True)


def test_replies_are_written_and_read() -> None:
    assert reply(250, "", "be1", "SIZE 1") == b"250-be1\r\n250 SIZE 1\r\n"
    said = reply(550, "5.1.1", "no\r\n250 forged")
    assert said == b"550 5.1.1 no??250 forged\r\n"
    assert code_of(said.rstrip()) == (550, True)
    assert code_of(b"250-be1") == (250, False)
    with pytest.raises(BadSyntax):
        code_of(b"* OK")


def test_xclient_tells_what_was_asked_for_and_is_read_back() -> None:
    facts = {b"ADDR": b"2001:db8::1", b"HELO": b"a b+c=\xe4", b"TTL": b"4", b"PORT": b""}
    line = format_xclient([b"TTL", b"ADDR", b"HELO", b"PORT", b"NAME"], facts)
    assert line == b"XCLIENT TTL=4 ADDR=IPV6:2001:db8::1 HELO=a+20b+2Bc+3D+E4\r\n"
    assert parse_xclient(line[8:]) == {
        b"TTL": b"4",
        b"ADDR": b"IPV6:2001:db8::1",
        b"HELO": b"a b+c=\xe4",
    }
    assert parse_xclient(b"name=[UNAVAILABLE] addr=1.2.3.4") == {b"ADDR": b"1.2.3.4"}
    assert format_xclient([b"NAME"], facts) == b""
    with pytest.raises(BadSyntax):
        parse_xclient(b"ADDR")


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=10))
def test_an_address_is_put_together_as_it_was(local: bytes, detail: bytes) -> None:
    recipient = Recipient(local.replace(b"+", b""), detail, b"example.org")
    if not recipient.local or any(octet < 0x20 for octet in local + detail):
        return
    path = format_path(recipient)
    assert parse_envelope(b"TO:<%b>" % path, b"TO:").path == path
    assert parse_recipient(path) == recipient


def test_by_which_id_a_backend_has_a_message_comes_back_as_it_went() -> None:
    assert (
        parse_saved(reply(250, "2.1.5", format_saved("692ab7c1-1f4-2a-1"))) == "692ab7c1-1f4-2a-1"
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"250 2.1.5 Ok\r\n",
        b"250 2.1.5 Ok SESSIONID=<cyrus-1-2>\r\n",
        b"250 2.1.5 <1-1-1-1> saved, and more\r\n",
        b"250 2.1.5 <\xff> saved\r\n",
        b"250 2.1.5 <1-1> and <2-2> saved\r\n",
        b"250-2.1.5 <1-1-1-1> saved\r\n250 2.1.5 <1-1-1-2> saved\r\n",
        b"550 5.1.1 <1-1-1-1> saved\r\n",
    ],
)
def test_other_replies_have_no_id(line: bytes) -> None:
    assert parse_saved(line) == ""
