"""SASL exchanges without a network: what a client sends, what comes of it (RFC 4616, 4422, 5802)."""

import base64
import hashlib
import hmac

import pytest
import scramp  # type: ignore[import-untyped] # it ships no types

from murder.errors import BadSyntax, Refusal
from murder.model.sasl import (
    Challenge,
    ExternalCredentials,
    PlainCredentials,
    ProvenCredentials,
)
from murder.session.sasl import (
    ExternalServer,
    LoginServer,
    PlainServer,
    ScramClient,
    ScramServer,
    Secret,
    SecretWanted,
)


def secret_of(password: str) -> Secret:
    salt, stored_key, server_key, iterations = scramp.ScramMechanism(
        "SCRAM-SHA-256"
    ).make_auth_info(password)
    return Secret(salt, iterations, stored_key, server_key)


def test_plain_takes_authzid_authcid_and_password() -> None:
    assert PlainServer().step(None) == Challenge(b"")
    found = PlainServer().step("a\0ü\0p:w".encode())
    assert found == PlainCredentials("ü", "a", b"p:w")


@pytest.mark.parametrize("response", [b"", b"a", b"a\0b", b"a\0\0c", b"a\0b\0c\0d", b"\0\xff\0c"])
def test_plain_refuses_what_is_none(response: bytes) -> None:
    with pytest.raises(BadSyntax):
        PlainServer().step(response)


def test_external_and_login() -> None:
    assert ExternalServer().step(b"") == ExternalCredentials("")
    with pytest.raises(BadSyntax):
        ExternalServer().step(b"a\0b")
    login = LoginServer()
    assert login.step(None) == Challenge(b"Username:")
    assert login.step(b"ana") == Challenge(b"Password:")
    assert login.step(b"pw") == PlainCredentials("ana", "", b"pw", "LOGIN")


def test_scram_the_example_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ScramServer()
    password, salt = b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    secret = Secret(
        salt,
        4096,
        hashlib.sha256(client_key).digest(),
        hmac.digest(salted, b"Server Key", "sha256"),
    )
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    wanted = server.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert wanted == SecretWanted("user", "SCRAM-SHA-256")
    assert server.supply(secret).octets == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    proven = server.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert proven == ProvenCredentials(
        "user", "", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


@pytest.mark.parametrize("password", ["pencil", "wrong"])
def test_scram_with_our_own_client(password: str) -> None:
    client, server = ScramClient("us=er,1", password), ScramServer()
    step = server.step(client.first())
    assert isinstance(step, SecretWanted)
    answer = client.answer(server.supply(secret_of("pencil")).octets)
    if password == "wrong":
        with pytest.raises(Refusal):
            server.step(answer)
        return
    proven = server.step(answer)
    assert isinstance(proven, ProvenCredentials)
    assert client.answer(proven.final) == b""


def test_scram_takes_an_authorization_identity() -> None:
    server = ScramServer()
    assert server.step(b"y,a=an=2Ca,n=murder,r=abc") == SecretWanted("murder", "SCRAM-SHA-256")
    server.supply(secret_of("x"))
    for final in (b"", b"c=eSw=", b"c=eSxh,r=abc,p=!!", b"c=,r=,p="):
        with pytest.raises(Refusal):
            server.step(final)


@pytest.mark.parametrize(
    "first",
    [b"", b"n", b"n,,", b"p=tls-unique,,n=a,r=b", b"n,x,n=a,r=b", b"n,,r=a,n=b", b"n,,n=a,r="],
)
def test_scram_refuses_what_is_no_beginning(first: bytes) -> None:
    with pytest.raises(BadSyntax):
        ScramServer().step(first)


@pytest.mark.parametrize(
    ("first", "named", "counts"),
    [
        (b"n,,", b"n,,", True),
        (b"y,,", b"y,,", True),  # it could bind channels, and has seen that we do not
        (b"y,,", b"n,,", False),  # somebody between has changed what it said
        (b"n,,", b"y,,", False),
        (b"n,a=boss,", b"n,,", False),
        (b"n,,", b"p=tls-exporter,,", False),
    ],
)
def test_scram_takes_a_proof_for_the_header_that_came_alone(
    first: bytes, named: bytes, counts: bool
) -> None:
    """RFC 5802 §6: the right password does not make up for another beginning."""
    salt, server, bare = b"salt", ScramServer(), b"n=ana,r=abc"
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    server.step(first + bare)
    secret = Secret(salt, 4096, hashlib.sha256(key).digest(), server_key)
    challenge = server.supply(secret).octets
    unproven = b"c=%b,%b" % (base64.b64encode(named), challenge.partition(b",")[0])
    signed = b",".join((bare, challenge, unproven))
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    answer = unproven + b",p=" + base64.b64encode(proof)
    if counts:
        assert isinstance(server.step(answer), ProvenCredentials)
        return
    with pytest.raises(Refusal):
        server.step(answer)
