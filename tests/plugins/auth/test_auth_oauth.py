"""Tokens of an identity provider: one in this process gives them out, turns its keys, and goes away."""

import asyncio
import imaplib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import jwt
import pytest

from murder.api import AuthBackend, Denied, Identity, LoginAttempt
from murder.auth.chain import Chain
from murder.auth.exchange import run_sasl
from murder.auth.gate import Gate, NotAdmitted
from murder.auth.penalty import Penalties
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from plugins import auth_oauth
from plugins.auth_oauth import OAuth, Settings
from tests.conftest import cannot_run
from tests.kit.threads import in_a_thread
from tests.rooms.auth.test_gate import Peer as Stub
from tests.rooms.frontend.server import Parts, running_frontend
from tests.rooms.serve.test_ways_in import message

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


class Provider(ThreadingHTTPServer):
    """What an OpenID provider tells of itself, and tokens."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        self.is_broken = False
        self.apart_s = 0  # its clock, from ours
        self.asked_for_keys, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self.turn("one")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def turn(self, name: str) -> None:
        """A new key; the old ones are gone."""
        from cryptography.hazmat.primitives.asymmetric import ec

        self.keys = {name: ec.generate_private_key(ec.SECP256R1())}

    def token(self, **claims: Any) -> str:
        (name, key), *_ = self.keys.items()
        facts = {
            "iss": self.url,
            "aud": "mail",
            "exp": int(time.time()) + 600,
            "preferred_username": "Anna@example.org",
            "groups": ["staff"],
            "scope": "openid mail",
            **claims,
        }
        facts = {name: value for name, value in facts.items() if value is not None}
        made: str = jwt.encode(facts, key, "ES256", headers={"kid": name})
        return made


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = cast(Provider, self.server)
        server.asked.append(self.path)
        if self.path == auth_oauth.WELL_KNOWN:
            return self.answer({"issuer": server.url, "jwks_uri": server.url + "/keys"})
        server.asked_for_keys.set()
        server.may_answer.wait(60)
        keys = []
        for name, key in server.keys.items():
            made = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
            keys.append({**made, "kid": name, "use": "sig"})
        self.answer({"keys": [{"kty": "strange", "kid": "x"}, {"kty": "oct", "k": "AA"}, *keys]})

    def do_POST(self) -> None:
        server = cast(Provider, self.server)
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.headers.get("Authorization") != "Basic bXVyZGVyOnNoYXJlZA==":
            self.send_response(401)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        (token,) = form["token"]
        if token != "opaque":
            return self.answer({"active": False})
        until = int(time.time()) + 60
        self.answer({"active": True, "username": "anna", "scope": "mail", "exp": until})
        server.asked.append(self.path)

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = time.time() if timestamp is None else timestamp
        return super().date_time_string(now + cast(Provider, self.server).apart_s)

    def answer(self, value: object) -> None:
        broken = cast(Provider, self.server).is_broken
        octets = b"<html>" if broken else json.dumps(value).encode()
        self.send_response(503 if broken else 200)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def provider() -> Iterator[Provider]:
    with in_a_thread(Provider()) as server:
        yield server


def checking(server: Provider, **keys: Any) -> OAuth:
    facts = {"issuer": server.url, "audience": ("mail",), "domains": ("Example.org",), **keys}
    return OAuth(Settings(**facts))


async def test_a_token_says_who_it_is() -> None:
    with provider() as server:
        users = checking(server)
        found = await users.check_token(HERE, "", server.token(email="anna@example.org"))
        assert isinstance(found, Identity)
        assert (found.user, found.groups) == ("anna", frozenset({"staff"}))
        assert found.addresses == ("anna@example.org", "Anna@example.org")
        assert found.expires_at is not None and found.expires_at > time.time()
        await users.check_token(HERE, "", server.token())
        assert server.asked == [auth_oauth.WELL_KNOWN, "/keys"]  # the keys are kept
        assert await users.diagnose() == []
        assert await users.verify("anna", b"secret") is None


async def test_what_is_no_token_for_us_is_not_taken() -> None:
    with provider() as server, provider() as stranger:
        users = checking(server)
        good = server.token()
        head, body, signature = good.split(".")
        unsigned = jwt.encode(
            {
                "iss": server.url,
                "aud": "mail",
                "exp": time.time() + 60,
                "preferred_username": "anna",
            },
            "",
            "none",
            headers={"kid": "one"},
        )
        symmetric = jwt.encode({"iss": server.url}, "a" * 64, "HS256", headers={"kid": "one"})
        stranger.keys = {"one": stranger.keys["one"]}
        for token in (
            "",
            "x",
            "a.b.c",
            f"{head}.{body}.",
            f"{head}.{body}.{signature[::-1]}",
            unsigned,
            symmetric,
            stranger.token(iss=server.url),  # another's key by the same name
            server.token(iss="http://other.example.org"),
            server.token(aud="web"),
            server.token(aud=None),
            server.token(exp=int(time.time()) - 3600),
            server.token(exp=None),
            server.token(nbf=int(time.time()) + 3600),
            server.token(preferred_username=None),
            server.token(preferred_username="a/b"),
            server.token(preferred_username=7),
        ):
            assert await users.check_token(HERE, "", token) is Denied.UNKNOWN, token
        early = server.token(exp=int(time.time()) - 30)  # clocks are apart by less than leeway_s
        assert isinstance(await users.check_token(HERE, "", early), Identity)


async def test_who_is_of_another_domain_or_verified_by_nobody_is_not_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with provider() as server:
        wrong: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"preferred_username": "admin@elsewhere.test"}, {}),
            ({}, {"domains": ()}),
            ({"email": "anna@example.org", "email_verified": False}, {"user": "email"}),
            ({"preferred_username": "a@b@elsewhere.test"}, {"strip_domain": False}),
        ]
        for claims, keys in wrong:
            users = checking(server, **keys)
            assert await users.check_token(HERE, "", server.token(**claims)) is Denied.UNKNOWN
        assert caplog.text.count("plugins.auth_oauth.domains names those that are yours") == 3
        right: list[tuple[dict[str, Any], dict[str, Any], str]] = [
            ({"preferred_username": "admin"}, {"domains": ()}, "admin"),
            ({}, {"domains": (), "strip_domain": False}, "anna@example.org"),
            ({"email": "anna@example.org", "email_verified": True}, {"user": "email"}, "anna"),
        ]
        for claims, keys, user in right:
            found = await checking(server, **keys).check_token(HERE, "", server.token(**claims))
            assert isinstance(found, Identity) and found.user == user


async def test_a_provider_whose_clock_is_apart_is_told() -> None:
    with provider() as server:
        assert await checking(server).diagnose() == []
        for apart_s, way in ((3600, "ahead of"), (-3600, "behind")):
            server.apart_s = apart_s
            (fault,) = await checking(server).diagnose()
            match = re.fullmatch(rf"the provider's clock is (\d+) s {way} the one here", fault.what)
            assert match is not None and 3500 < int(match[1]) < 3700, fault.what
            assert "NTP" in fault.cure


async def test_keys_are_fetched_again_for_one_that_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right behind the last look, too: all who come with keys that nobody knows wait for the same one."""
    monkeypatch.setattr(auth_oauth, "AGAIN_S", 0.1)
    with provider() as server:
        users = checking(server)
        old = server.token()
        assert isinstance(await users.check_token(HERE, "", old), Identity)
        server.turn("other")
        odd = server.token()
        server.turn("two")
        new = server.token()
        came = [users.check_token(HERE, "", token) for token in (odd, new) * 20]
        for number, answer in enumerate(await asyncio.gather(*came)):
            assert isinstance(answer, Identity) if number % 2 else answer is Denied.UNKNOWN
        # a look that began before somebody came says nothing to them
        assert server.asked.count("/keys") <= 3
        assert await users.check_token(HERE, "", old) is Denied.UNKNOWN
        server.is_broken = True  # what is known goes on counting
        assert isinstance(await users.check_token(HERE, "", new), Identity)


async def test_a_look_that_is_broken_off_makes_no_token_of_others_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth_oauth, "AGAIN_S", 0.1)
    with provider() as server:
        users = checking(server)
        assert isinstance(await users.check_token(HERE, "", server.token()), Identity)
        server.turn("two")
        new, server.asked_for_keys = server.token(), threading.Event()
        server.may_answer.clear()
        first = asyncio.create_task(users.check_token(HERE, "", new))
        second = asyncio.create_task(users.check_token(HERE, "", new))
        assert await asyncio.to_thread(server.asked_for_keys.wait, 60)
        first.cancel()
        server.may_answer.set()
        assert isinstance(await second, Identity)


async def test_a_new_key_of_a_provider_that_is_away_is_no_wrong_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth_oauth, "AGAIN_S", 0.0)
    monkeypatch.setattr(auth_oauth, "AWAY_S", 3600.0)
    with provider() as server:
        users = checking(server, keys_s=0.0)  # so that all are old at once
        old = server.token()
        assert isinstance(await users.check_token(HERE, "", old), Identity)
        server.turn("two")
        new, server.is_broken = server.token(), True
        for _ in range(2):
            with pytest.raises(UpstreamFailure, match="is the URL right"):
                await users.check_token(HERE, "", new)
            assert isinstance(await users.check_token(HERE, "", old), Identity)
        assert len(server.asked) == 3  # it was not asked for each
        server.is_broken = False
        monkeypatch.setattr(auth_oauth, "AWAY_S", 0.0)
        assert isinstance(await users.check_token(HERE, "", new), Identity)
        assert await users.check_token(HERE, "", old) is Denied.UNKNOWN


async def test_a_scope_that_is_missing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with provider() as server:
        users = checking(server, required_scope="mail")
        assert isinstance(await users.check_token(HERE, "", server.token()), Identity)
        with pytest.raises(Refusal, match="the scope mail"):
            await users.check_token(HERE, "", server.token(scope="openid"))
    assert "its scope is 'openid'" in caplog.text and "required_scope" in caplog.text


@pytest.mark.parametrize(
    ("mechanism", "missing", "wrong"),
    [("OAUTHBEARER", "insufficient_scope", "invalid_token"), ("XOAUTH2", "403", "401")],
)
async def test_a_client_is_told_which_scope_is_missing(
    mechanism: str, missing: str, wrong: str
) -> None:
    """Also where another plugin that takes tokens is before: it gets a new one from whom the token is."""
    heard: list[dict[str, str]] = []

    async def ask(challenge: bytes) -> bytes:
        heard.append(json.loads(challenge))
        return b"\x01"

    with provider() as other, provider() as server:
        first, users = checking(other), checking(server, required_scope="mail")
        gate = Gate(Chain([("first", first), ("second", users)]), penalties=Penalties(0, 0))
        for token, status, code in (
            (server.token(scope="openid"), missing, Code.AUTHORIZATION_FAILED),
            (server.token(exp=1), wrong, Code.AUTHENTICATION_FAILED),
        ):
            said = message(mechanism, token.encode())
            with pytest.raises(NotAdmitted) as refused:
                await run_sasl(gate, mechanism, said, ask, Stub(), "imap")  # type: ignore[arg-type]
            assert refused.value.code is code
            assert heard.pop()["status"] == status and not heard
        with pytest.raises(NotAdmitted):
            said = message(mechanism, server.token(scope="openid").encode())
            await run_sasl(gate, mechanism, said, ask, Stub(), "imap")  # type: ignore[arg-type]
        assert heard[0]["scope"] == "mail"
        assert heard[0]["openid-configuration"] == users.openid_configuration != ""


@pytest.mark.parametrize(
    ("claims", "says", "cure"),
    [
        ({"exp": 1}, "it has expired", "must get a new one"),
        ({"nbf": 1 << 40}, "it counts only later", "set both clocks (NTP"),
        ({"iss": "https://other"}, "it is issued by 'https://other'", "plugins.auth_oauth.issuer"),
        ({"aud": "web\x1b[2J"}, "it is for 'web\\x1b[2J'", "plugins.auth_oauth.audience"),
        ({"exp": None}, "it has no claim exp", "must put it in"),
        ({"preferred_username": None}, "no claim preferred_username", "plugins.auth_oauth.user"),
        ({"preferred_username": "a b"}, "'a b' is fit for no user id", "plugins.auth_oauth.user"),
    ],
)
async def test_why_a_token_is_not_taken_is_told_to_the_log_with_the_cure(
    claims: dict[str, Any], says: str, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    with provider() as server:
        users = checking(server, user="preferred_username")
        assert await users.check_token(HERE, "", server.token(**claims)) is Denied.UNKNOWN
    assert "a token is not taken: " in caplog.text and says in caplog.text
    assert cure in caplog.text


async def test_a_token_within_the_leeway_gives_a_session_as_long() -> None:
    with provider() as server:
        found = await checking(server).check_token(HERE, "", server.token(exp=time.time() - 30))
        assert isinstance(found, Identity) and found.expires_at is not None
        assert found.expires_at > time.time()


async def test_a_provider_is_asked_about_tokens_that_say_nothing() -> None:
    with provider() as server:
        keys = {"introspection": server.url + "/introspect", "client_id": "murder"}
        users = OAuth(Settings(**keys, client_secret="shared", user="preferred_username"))  # type: ignore[arg-type]
        found = await users.check_token(HERE, "", "opaque")
        assert isinstance(found, Identity) and found.user == "anna"
        assert await users.check_token(HERE, "", "revoked") is Denied.UNKNOWN
        assert await users.diagnose() == []
        wrong = OAuth(Settings(**keys, client_secret="wrong"))  # type: ignore[arg-type]
        (fault,) = await wrong.diagnose()
        assert fault.cure == "set client_id and client_secret"


async def test_a_provider_that_is_away_is_no_wrong_token() -> None:
    with provider() as server:
        token = server.token()
        server.is_broken = True
        users = checking(server)
        with pytest.raises(UpstreamFailure) as failed:
            await users.check_token(HERE, "", token)
        assert failed.value.kind is UpstreamKind.PROTOCOL
        gone = server.url
    users = OAuth(Settings(issuer=gone, audience=("mail",)))
    with pytest.raises(UpstreamFailure) as failed:
        await users.check_token(HERE, "", token)
    assert failed.value.kind is UpstreamKind.CONNECT
    (fault,) = await users.diagnose()
    assert "does the provider run" in fault.cure


async def test_an_issuer_that_calls_itself_otherwise_is_told() -> None:
    with provider() as server:
        users = checking(server, issuer=server.url + "/")
        (fault,) = await users.diagnose()
        assert "it calls itself" in fault.what
        assert "plugins.auth_oauth.issuer" in fault.cure


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "set issuer"),
        ({"issuer": "https://x"}, "set audience"),
        ({"issuer": "https://x", "audience": ("m",), "algorithms": ("HS256",)}, "algorithms are"),
        ({"issuer": "https://x", "audience": ("m",), "algorithms": ("none",)}, "algorithms are"),
        ({"issuer": "ftp://x", "audience": ("m",)}, "does not begin"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**keys)


class WithTokens(Parts):
    """The parts of a frontend that takes tokens."""

    def __init__(self, users: OAuth) -> None:
        self.users = users

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("auth_oauth", self.users)]


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_curl_and_imaplib_log_in_with_a_token(tmp_path: Path, mechanism: str) -> None:
    if shutil.which("curl") is None:
        cannot_run("curl is not installed")
    with provider() as server:
        token, old = server.token(), server.token(exp=1)
        async with running_frontend(
            tmp_path, {}, {}, parts=WithTokens(checking(server))
        ) as running:
            port = running.ports["imap"]

            def curl(given: str) -> "subprocess.CompletedProcess[str]":
                words = ["--login-options", f"AUTH={mechanism}", "-u", "anna:", "-X", "NOOP"]
                url = f"imap://127.0.0.1:{port}/"
                return subprocess.run(
                    ["curl", "-sv", *words, "--oauth2-bearer", given, url],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )

            done = await asyncio.to_thread(curl, token)
            assert done.returncode == 0, done.stderr
            refused = await asyncio.to_thread(curl, old)
            assert refused.returncode == 67  # CURLE_LOGIN_DENIED

            def library() -> tuple[str, bytes]:
                with imaplib.IMAP4("127.0.0.1", port) as imap:
                    said: list[bytes] = []

                    def answer(challenge: bytes) -> bytes:
                        said.append(challenge)
                        if challenge:
                            return b"\x01"
                        if mechanism == "XOAUTH2":
                            return b"user=anna\x01auth=Bearer " + old.encode() + b"\x01\x01"
                        return b"n,a=anna,\x01auth=Bearer " + old.encode() + b"\x01\x01"

                    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
                        imap.authenticate(mechanism, answer)
                    return imap.state, said[-1]

            state, challenge = await asyncio.to_thread(library)
            assert state == "NONAUTH"
            assert (
                json.loads(challenge)["openid-configuration"] == server.url + auth_oauth.WELL_KNOWN
            )
