"""Directories and providers in wrong hands: silent, endless, or with answers that no program makes. Whoever asks is told
"try again later", nothing grows, and nobody else waits."""

import asyncio
import base64
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from murder.api import Denied, Identity, LoginAttempt
from murder.auth.chain import Chain
from murder.errors import UpstreamFailure, UpstreamKind
from plugins.auth_http import AuthHttp
from plugins.auth_http import Settings as HttpSettings
from plugins.auth_ldap import ber, messages
from plugins.auth_ldap.directory import Directory
from plugins.auth_ldap.settings import Settings as LdapSettings
from plugins.auth_oauth import OAuth
from plugins.auth_oauth import Settings as OAuthSettings
from tests.kit.steps import Calls, Turns
from tests.rooms.frontend.server import served

SET = 0x31
HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[int]:
    """A server that says what a script says, at this port."""
    async with AsyncExitStack() as stack:
        yield await served(stack, speak)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


async def kind_of(asked: Awaitable[object]) -> tuple[UpstreamKind, str]:
    with pytest.raises(UpstreamFailure) as caught:
        await asked
    return caught.value.kind, caught.value.text


# --- LDAP


def answer(number: int, operation: bytes) -> bytes:
    return ber.element(ber.SEQUENCE, ber.integer(number), operation)


def entry(*values: bytes, name: bytes = b"uid=ana") -> bytes:
    attribute = ber.element(
        ber.SEQUENCE, ber.octets(b"uid"), ber.element(SET, *map(ber.octets, values))
    )
    return ber.element(messages.ENTRY, ber.octets(name), ber.element(ber.SEQUENCE, attribute))


def endless(*, operation: bytes, number: int | None = None) -> Speak:
    """The same message again and again, to the request, or to one that there was not."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(4096)
        while True:
            writer.write(answer(asked[4] if number is None else number, operation) * 100)
            await writer.drain()

    return speak


def directory(port: int, **keys: Any) -> Directory:
    settings = LdapSettings(servers=(f"ldap://127.0.0.1:{port}",), base="dc=x", **keys)
    return Directory(settings, ssl.create_default_context())


@pytest.mark.parametrize(
    ("speak", "problem"),
    [
        (endless(operation=entry(b"ana")), "more entries than were asked for"),
        (endless(operation=ber.element(messages.REFERENCE)), "references without end"),
        (endless(operation=entry(b"ana"), number=77), "nobody has asked for"),
        (endless(operation=entry(*[b""] * 20_000)), "values or more"),
    ],
    ids=["entries", "references", "unasked", "values"],
)
async def test_a_directory_that_never_ends_is_left(speak: Speak, problem: str) -> None:
    async with speaking(speak) as port:
        kind, text = await kind_of(directory(port, timeout_s=60).lookup("ana"))
    assert kind is UpstreamKind.PROTOCOL
    assert problem in text


async def test_a_directory_that_says_it_goes_is_believed() -> None:
    """Once: it may say so without end."""
    notice = ber.element(
        messages.EXTENDED_DONE,
        ber.integer(52, ber.ENUMERATED),
        ber.octets(b""),
        ber.octets(b"shut down"),
    )
    async with speaking(endless(operation=notice, number=0)) as port:
        kind, text = await kind_of(directory(port, timeout_s=60).lookup("ana"))
    assert kind is UpstreamKind.LOST
    assert "shut down" in text


async def test_a_large_entry_is_no_long_turn() -> None:
    octets = answer(1, entry(*[b""] * 400_000))
    async with Turns() as turns:
        with pytest.raises(ber.Malformed):
            messages.parse_message(octets)
        await asyncio.sleep(0)
    assert turns.longest < 50_000


async def test_a_silent_directory_is_asked_no_longer_than_its_time() -> None:
    async with speaking(silence) as port:
        kind, _ = await kind_of(directory(port, connect_timeout_s=0.1, timeout_s=0.1).lookup("ana"))
    assert kind is UpstreamKind.TIMEOUT


# --- HTTP and OAuth


def web(*parts: bytes, again: bytes = b"") -> Speak:
    """One answer to whatever is asked, and then `again` without end."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"".join(parts))
            await writer.drain()
            while again:
                writer.write(again * 1000)
                await writer.drain()

    return speak


def ok(body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "speak",
    [
        silence,
        web(HEAD, again=b"A: b\r\n"),
        web(HEAD + b"Auth-Status: " + b"x" * 300_000),
        web(
            HEAD
            + b"Auth-Status: OK\r\nAuth-User: ana\r\nAuth-Groups: "
            + b"a," * 40_000
            + b"\r\n\r\n"
        ),
    ],
    ids=["silence", "headers", "line", "groups"],
)
async def test_a_script_that_answers_so_lets_nobody_in(speak: Speak) -> None:
    async with speaking(speak) as port:
        script = AuthHttp(HttpSettings(f"http://127.0.0.1:{port}/", timeout_s=0.3))
        chain = Chain([("auth_http", script)])
        try:
            assert await chain.decide(HERE, "ana", b"secret") is not None
        except UpstreamFailure as failure:
            assert failure.kind in (UpstreamKind.TIMEOUT, UpstreamKind.LOST)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PROVISIONAL = b"HTTP/1.1 100 \r\n\r\n"


@pytest.mark.parametrize(
    "speak",
    [web(CHUNKED, again=b"1\r\n \r\n"), web(again=PROVISIONAL)],
    ids=["chunks", "provisional"],
)
async def test_a_provider_that_never_ends_leaves_the_others_their_turn(speak: Speak) -> None:
    async with speaking(speak) as port, Calls("next_event") as looked:
        kind, _ = await kind_of(introspecting(port, 60).check_token(HERE, "", "token"))
    assert kind in (UpstreamKind.PROTOCOL, UpstreamKind.LOST)
    assert 10 < looked.longest < 300


async def test_a_script_that_never_ends_leaves_the_others_their_turn() -> None:
    async with speaking(web(again=PROVISIONAL)) as port, Calls("next_event") as looked:
        script = AuthHttp(HttpSettings(f"http://127.0.0.1:{port}/", timeout_s=60))
        kind, _ = await kind_of(script.check(HERE, "ana", b"x"))
    assert kind is UpstreamKind.LOST
    assert 10 < looked.longest < 300


def introspecting(port: int, timeout_s: float) -> OAuth:
    url = f"http://127.0.0.1:{port}/"
    return OAuth(
        OAuthSettings(introspection=url, client_id="m", client_secret="s", timeout_s=timeout_s)
    )


@pytest.mark.parametrize(
    "speak",
    [
        silence,
        web(HEAD + b"Content-Length: 99999999999\r\n\r\n", again=b"[" * 1000),
        web(ok(b"[" * 900_000)),
        web(ok(b'{"active": ' + b"9" * 900_000 + b"}")),
        web(ok(b"\x1f\x8b" + bytes(1000), b"Content-Encoding: gzip")),
    ],
    ids=["silence", "endless", "deep", "digits", "gzip"],
)
async def test_a_provider_that_answers_so_lets_nobody_in(speak: Speak) -> None:
    async with speaking(speak) as port:
        kind, _ = await kind_of(introspecting(port, 0.3).check_token(HERE, "", "token"))
    assert kind in (UpstreamKind.TIMEOUT, UpstreamKind.PROTOCOL)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 10**400},
        {"exp": float("nan")},
        {"aud": [{}, 7]},
        {"aud": 7},
        {"scope": 7},
        {"scp": [{}]},
        {"groups": [{}, "staff", 7]},
        {"groups": {"staff": 1}},
        {"email": ["a"], "name": {}},
    ],
)
async def test_odd_claims_are_passed_over(claims: dict[str, Any]) -> None:
    told = {"active": True, "preferred_username": "ana", **claims}
    async with speaking(web(ok(json.dumps(told).encode()))) as port:
        found = await introspecting(port, 20.0).check_token(HERE, "", "token")
    assert isinstance(found, Identity) and found.user == "ana"
    assert found.groups <= {"staff"} and found.expires_at is None


def in_base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


@pytest.mark.parametrize(
    "head", [b"[" * 3000, b"[" * 60_000, b'{"alg":' + b"[" * 2000, b'{"alg":["RS256"]}', b"7"]
)
async def test_a_token_with_such_a_head_is_nobodys(head: bytes) -> None:
    users = OAuth(OAuthSettings(issuer="http://127.0.0.1:1", audience=("mail",)))
    assert await users.check_token(HERE, "", f"{in_base64(head)}.e30.AAAA") is Denied.UNKNOWN


def keys(*found: dict[str, Any]) -> Speak:
    return web(ok(json.dumps({"keys": found}).encode()))


@pytest.mark.parametrize(
    "found",
    [
        [{"kty": "RSA", "n": "_" * 700_000, "e": "AQAB", "kid": "a"}],
        [{"kty": "RSA", "n": "AQAB", "e": "AQAB" * 100_000, "kid": "a"}],
        [{"kty": ["RSA"]}, {"kty": "EC", "crv": 7}, {"kty": "OKP", "x": ""}, {}],
        [],
    ],
    ids=["modulus", "exponent", "odd", "none"],
)
async def test_keys_that_nobody_can_use_are_none(found: Sequence[dict[str, Any]]) -> None:
    async with speaking(keys(*found)) as port:
        url = f"http://127.0.0.1:{port}"
        users = OAuth(OAuthSettings(issuer=url, audience=("mail",), jwks_url=url))
        token = in_base64(b'{"alg":"RS256","kid":"a"}') + ".e30.AAAA"
        kind, _ = await kind_of(users.check_token(HERE, "", token))
    assert kind is UpstreamKind.PROTOCOL


async def test_many_with_tokens_do_not_wait_one_after_the_other_for_a_silent_provider() -> None:
    asked = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await silence(reader, writer)

    async with speaking(speak) as port:
        url = f"http://127.0.0.1:{port}"
        users = OAuth(OAuthSettings(issuer=url, audience=("mail",), jwks_url=url, timeout_s=0.2))
        token = in_base64(b'{"alg":"RS256","kid":"a"}') + ".e30.AAAA"
        checks = [kind_of(users.check_token(HERE, "", token)) for _ in range(20)]
        kinds = {kind for kind, _ in await asyncio.gather(*checks)}
    assert kinds == {UpstreamKind.TIMEOUT}
    assert asked == 1


# --- all of them


class Generous:
    """Puts everybody into many groups."""

    def __init__(self, count: int) -> None:
        self._groups = frozenset(f"g{number}" for number in range(count))

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, self._groups)

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user, self._groups)


async def test_whoever_is_in_too_many_groups_is_told_of_and_not_let_in() -> None:
    assert await Chain([("a", Generous(10))], max_groups=10).decide(HERE, "ana", b"x") is not None
    chain = Chain([("a", Generous(11))], max_groups=10)
    for asked in (chain.decide(HERE, "ana", b"x"), chain.find("ana")):
        kind, text = await kind_of(asked)
        assert kind is UpstreamKind.PROTOCOL
        assert text == "ana is in 11 groups, more than auth.max_groups (10)"


@pytest.mark.parametrize(
    ("plugin", "settings"),
    [
        ("auth_http", "url='http://127.0.0.1:9/'"),
        ("auth_oauth", "issuer='https://x.test', jwks_url='https://x.test/keys', audience=('x',)"),
    ],
)
def test_the_first_login_loads_no_library(plugin: str, settings: str) -> None:
    """A quarter of a second for everybody who is served then, were it not done at the start."""
    script = f"""
import asyncio, sys
from murder.api import LoginAttempt
from plugins.{plugin} import Settings, make_auth_backend

backend = make_auth_backend(Settings({settings}))
before = set(sys.modules)

async def log_in():
    attempt = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)
    try:
        if "{plugin}" == "auth_http":
            await backend.check(attempt, "ana", b"x")
        else:
            await backend.check_token(attempt, "ana", "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.AAAA")
    except Exception:
        pass

asyncio.run(log_in())
libraries = {{"httpx", "httpcore", "jwt", "h11", "anyio"}}
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} & libraries))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
