"""Tokens as clients send them: RFC 7628, and XOAUTH2."""

import json

import pytest

from murder.errors import BadSyntax
from murder.model.sasl import TokenClaim
from murder.session.bearer import (
    OAUTHBEARER,
    XOAUTH2,
    format_failure,
    parse_oauthbearer,
    parse_xoauth2,
)

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def test_the_example_of_rfc_7628_is_read() -> None:
    message = (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer %b\x01\x01"
    )
    claim = parse_oauthbearer(message % TOKEN.encode())
    assert claim == TokenClaim("user@example.com", TOKEN)
    assert TOKEN not in repr(claim)


def test_a_client_need_not_say_who_it_is() -> None:
    assert parse_oauthbearer(b"n,,\x01auth=Bearer abc\x01\x01") == TokenClaim("", "abc")
    assert parse_oauthbearer(b"y,a=a=2Cb,\x01auth=bearer abc\x01\x01") == TokenClaim("a,b", "abc")


def test_xoauth2_is_read() -> None:
    message = b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01"
    assert parse_xoauth2(message) == TokenClaim("someuser@example.com", "ya29.vF9dft4")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,",
        b"n,,\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer abc\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Basic abc\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth\x01\x01",
        b"p=tls-unique,,\x01auth=Bearer abc\x01\x01",
        b"n,b=x,\x01auth=Bearer abc\x01\x01",
        b"n,a=\xff,\x01auth=Bearer abc\x01\x01",
        b"n,,\x01auth=Bearer " + b"a" * 20_000 + b"\x01\x01",
    ],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_oauthbearer(message)


@pytest.mark.parametrize(
    "message", [b"user=a", b"a\x01auth=Bearer b\x01\x01", b"user=\xff\x01auth=Bearer b\x01\x01"]
)
def test_what_is_no_xoauth2_is_refused(message: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_xoauth2(message)


def test_a_failure_says_where_to_ask() -> None:
    url = "https://id.example.org/.well-known/openid-configuration"
    assert json.loads(format_failure(OAUTHBEARER, "mail", url)) == {
        "status": "invalid_token",
        "scope": "mail",
        "openid-configuration": url,
    }
    assert json.loads(format_failure(XOAUTH2, "", "")) == {"status": "401", "schemes": "bearer"}
    for mechanism, status in ((OAUTHBEARER, "insufficient_scope"), (XOAUTH2, "403")):
        said = json.loads(format_failure(mechanism, "mail", url, is_scope_missing=True))
        assert (said["status"], said["scope"], said["openid-configuration"]) == (
            status,
            "mail",
            url,
        )
