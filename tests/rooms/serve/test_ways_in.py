"""Every way to log in, by every protocol, of every kind of plugin: what is wrong is counted and logged alike, what is right
is in, and bound by the same limits. And no exchange of odd octets ends in anything but a refusal.
"""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from murder.api.auth import AuthBackend, Denied, Identity, LoginAttempt
from murder.auth.app_passwords import AppPasswords
from murder.auth.chain import Chain
from murder.auth.exchange import run_sasl
from murder.auth.gate import Gate
from murder.auth.limit import ConnectionLimit
from murder.auth.penalty import Penalties
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import set_up
from murder.net.connection import Connection
from murder.serve.client import ClientDialogue
from murder.session.sasl import ScramClient
from plugins.auth_file import Settings, UserFile
from plugins.sasl_gssapi import Settings as GssapiSettings
from plugins.sasl_gssapi import make_mechanisms
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.kit.waiting import Naps
from tests.rooms.auth.test_gate import Peer as Stub
from tests.rooms.serve.test_client import KINDS, MADE, dialogue_of

RIGHT, WRONG = b"secret", b"guess"


class Old:
    """A plugin of two methods."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user) if (user, password) == ("anna", RIGHT) else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user) if user == "anna" else None


class New(Old):
    """One with all the powers that a login meets."""

    openid_configuration = "https://id.test/.well-known/openid-configuration"
    scope = "mail"

    @property
    def depends_on(self) -> Collection[str]:
        return ("protocol",)

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        assert (attempt.protocol in KINDS) and attempt.address == "127.0.0.1" and attempt.number
        if user != "anna":
            return Denied.UNKNOWN
        return Identity(user) if password == RIGHT else Denied.WRONG

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        return Identity("anna") if token == RIGHT.decode() else Denied.UNKNOWN


async def file_in(folder: Path) -> AuthBackend:
    users = UserFile(folder / "users", Settings(log2_cost=4, scram_iterations=4096))
    await users.set_passwords({"anna": RIGHT})
    return users


async def chain_with(plugin: str, folder: Path) -> tuple[Chain, bytes]:
    """A chain, and the right password."""
    match plugin:
        case "old":
            return Chain([("old", Old())]), RIGHT
        case "new":
            return Chain([("new", New())]), RIGHT
        case "file":
            return Chain([("file", await file_in(folder))]), RIGHT
        case "second":
            empty = UserFile(folder / "none", Settings(log2_cost=4))
            return Chain([("file", empty), ("new", New())]), RIGHT
        case _:
            apps = AppPasswords(folder)
            password = apps.add("anna", "phone").encode()
            return Chain([("new", New())], apps=apps), password


def message(mechanism: str, password: bytes) -> bytes:
    match mechanism:
        case "OAUTHBEARER":
            return b"n,a=anna,\x01auth=Bearer %b\x01\x01" % password
        case "XOAUTH2":
            return b"user=anna\x01auth=Bearer %b\x01\x01" % password
        case "LOGIN":
            return b"anna"  # its password comes when it is asked for
    return b"\0anna\0" + password


def begin(kind: str, mechanism: str, response: bytes) -> bytes:
    name, text = mechanism.encode(), base64.b64encode(response)
    match kind:
        case "imap":
            return b"a AUTHENTICATE %b %b\r\n" % (name, text)
        case "mupdate":
            return b'a AUTHENTICATE "%b" "%b"\r\n' % (name, text)
        case "sieve":
            return b'AUTHENTICATE "%b" "%b"\r\n' % (name, text)
    return b"AUTH %b %b\r\n" % (name, text)


def answer_with(kind: str, response: bytes) -> bytes:
    """To a challenge; \x01 is that of a client whose token was not taken."""
    text = base64.b64encode(response)
    return b'"%b"\r\n' % text if kind == "sieve" else text + b"\r\n"


def is_good(kind: str, line: bytes) -> bool:
    return line.startswith(
        {"imap": b"a OK", "mupdate": b"a OK", "lmtp": b"235"}.get(kind, b"+OK")
    ) or (kind == "sieve" and line.startswith(b"OK"))


def is_challenge(kind: str, line: bytes) -> bool:
    return line.startswith((b"+ ", b"334 ")) or (kind in ("sieve",) and line[:1] in (b'"', b"{"))


def commands(kind: str, password: bytes) -> list[bytes]:
    """The way in without SASL."""
    if kind == "imap":
        return [b"a LOGIN anna %b\r\n" % password]
    return [b"USER anna\r\n", b"PASS %b\r\n" % password]


@asynccontextmanager
async def dialogues(kind: str, gate: Gate, folder: Path) -> AsyncIterator[Callable[[], Any]]:
    def serve(connection: Connection) -> ClientDialogue:
        return dialogue_of(kind, connection, gate, folder)

    async with listening(serve) as place:

        async def connect() -> Peer:
            peer = await Peer.at(place.port)
            if kind in ("mupdate", "sieve"):
                await peer.until(b"* OK" if kind == "mupdate" else b"OK")
            else:
                await peer.line()
            return peer

        yield connect


async def told(peer: Peer, kind: str, way: str, password: bytes) -> bytes:
    """Try, and the last line of what comes."""
    if way == "COMMAND":
        line = b""
        for command in commands(kind, password):
            peer.send(command)
            line = await peer.line()
        return line
    scram = ScramClient("anna", password.decode()) if way == "SCRAM-SHA-256" else None
    peer.send(begin(kind, way, scram.first() if scram else message(way, password)))
    while True:
        line = await peer.line()
        if kind == "mupdate" and line[:2] not in (b"a ", b"* "):
            challenge = line
        elif is_challenge(kind, line):
            challenge = await peer.line() if line[:1] == b"{" else line.strip(b'"').split(b" ")[-1]
        else:
            return line
        if scram is None:
            peer.send(answer_with(kind, password if way == "LOGIN" else b"\x01"))
            continue
        try:
            answer = base64.b64encode(scram.answer(base64.b64decode(challenge)))
        except Refusal:  # the server has not proven itself: it does not know the password
            answer = b""
        peer.send((b'"%b"' % answer if kind == "sieve" else answer) + b"\r\n")


def ways() -> list[tuple[str, str, str]]:
    found = []
    for kind in ("imap", "pop3", "lmtp", "sieve"):
        for plugin in ("old", "new", "file", "second", "app"):
            found.append((kind, "PLAIN", plugin))
            if kind in ("imap", "pop3"):
                found.append((kind, "COMMAND", plugin))
        found += [(kind, "LOGIN", "old"), (kind, "LOGIN", "second"), (kind, "LOGIN", "app")]
        found += [(kind, "OAUTHBEARER", "new"), (kind, "XOAUTH2", "second")]
        found.append((kind, "SCRAM-SHA-256", "file"))
    found += [("mupdate", "PLAIN", "file"), ("mupdate", "SCRAM-SHA-256", "file")]
    found.append(("mupdate", "XOAUTH2", "new"))
    return found


def in_roles() -> list[tuple[str, str, str, str]]:
    """A frontend offers no SCRAM, which it could not pass on for an administrator, and speaks no MUPDATE."""
    return [
        (kind, way, plugin, role)
        for (kind, way, plugin), role in product(ways(), ("frontend", "backend"))
        if role == "backend" or not (way.startswith("SCRAM") or kind == "mupdate")
    ]


@pytest.mark.parametrize(("kind", "way", "plugin", "role"), in_roles())
async def test_all_ways_in_are_alike(
    kind: str, way: str, plugin: str, role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chain, right = await chain_with(plugin, tmp_path)
    await all_is_alike(kind, way, role, chain, right, tmp_path, capfd)


async def all_is_alike(
    kind: str,
    way: str,
    role: str,
    chain: Chain,
    right: bytes,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A wrong password, the right one, and one connection too many, of anna."""
    set_up("info", "json")
    naps = Naps()
    gate = Gate(
        chain,
        allow_plaintext=True,
        penalties=Penalties(sleep=naps.sleep, clock=naps.clock),
        connections=ConnectionLimit(1),
        keep_admin_password=role == "frontend",
    )
    async with dialogues(kind, gate, folder) as connect:
        peer = await connect()
        line = await told(peer, kind, way, WRONG)
        assert not is_good(kind, line), line
        assert gate.penalties.failures("127.0.0.1", "anna") == 1
        assert naps.taken == [2.0]
        line = await told(peer, kind, way, right)
        assert is_good(kind, line), line
        assert gate.penalties.failures("127.0.0.1", "anna") == 0
        if kind not in ("lmtp", "mupdate"):  # their limits are the node's
            other = await connect()
            assert not is_good(kind, await told(other, kind, way, right))
            await other.close()
        await peer.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [(one["event"], one.get("user"), one["protocol"]) for one in lines if "user" in one]
    assert events[:2] == [("login.failed", "anna", kind), ("login.succeeded", "anna", kind)]
    by = {("imap", "COMMAND"): "LOGIN", ("pop3", "COMMAND"): "USER"}.get((kind, way), way)
    logins = [one for one in lines if one["event"] in ("login.failed", "login.succeeded")]
    assert {one["mechanism"] for one in logins} == {by}
    assert right.decode() not in json.dumps(lines)
    assert WRONG.decode() not in json.dumps(lines)


class WithMaster(New):
    """One who may act for others, too."""

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        if user == "boss":
            return Identity(user) if password == b"master" else Denied.WRONG
        return await super().check(attempt, user, password)


@pytest.mark.parametrize("role", ["frontend", "backend"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *product(("imap", "pop3", "lmtp", "sieve"), ("PLAIN", "authzid")),
        *product(("imap", "pop3"), ("COMMAND",)),
        ("imap", "as imaplib"),
    ],
)
async def test_a_master_user_is_in_as_another_by_every_protocol_and_each_time_in_the_log(
    kind: str, way: str, role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    gate = Gate(
        WithMaster(),
        masters=["boss"],
        allow_plaintext=True,
        penalties=Penalties(0, 0),
        keep_admin_password=role == "frontend",
    )
    async with dialogues(kind, gate, tmp_path) as connect:
        for password in (b"guess", b"master"):
            peer = await connect()
            if way in ("COMMAND", "as imaplib"):
                line = b""
                for command in commands(kind, password):
                    is_quoted = kind == "imap" and way == "COMMAND"
                    name = b'"anna*boss"' if is_quoted else b"anna*boss"
                    peer.send(command.replace(b"anna", name))
                    line = await peer.line()
            else:
                name = b"\0anna*boss\0" if way == "PLAIN" else b"anna\0boss\0"
                peer.send(begin(kind, "PLAIN", name + password))
                line = await peer.line()
            assert is_good(kind, line) == (password == b"master"), line
            await peer.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    masters = [
        (one["user"], one["master"], one["protocol"])
        for one in lines
        if one["event"] == "login.by_master"
    ]
    assert masters == [("anna", "boss", kind)]
    assert [one["user"] for one in lines if one["event"] == "login.succeeded"] == ["anna"]
    assert len([one for one in lines if one["event"] == "login.failed"]) == 1


class NotNow(Old):
    """One who has the right password and may not come in."""

    depends_on: Collection[str] = ()

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        raise Refusal(Code.CONTACT_ADMIN if user == "anna" else Code.EXPIRED, "Not in")


@pytest.mark.parametrize(
    ("kind", "disabled", "expired", "unknown"),
    [
        ("imap", b"a NO [CONTACTADMIN]", b"a NO [EXPIRED]", b"a NO [CANNOT]"),
        ("pop3", b"-ERR [SYS/PERM]", b"-ERR [AUTH]", b"-ERR NTLM is not offered here"),
        ("lmtp", b"525 5.7.13", b"535 5.7.8", b"504 5.5.4"),
        ("sieve", b'NO "', b'NO "', b'NO "'),
        ("mupdate", b"a NO ", b"a NO ", b"a NO "),
    ],
)
async def test_who_is_refused_for_another_reason_than_a_password_is_told_so(
    kind: str, disabled: bytes, expired: bytes, unknown: bytes, tmp_path: Path
) -> None:
    gate = Gate(Chain([("plugin", NotNow())]), allow_plaintext=True, penalties=Penalties(0, 0))
    async with dialogues(kind, gate, tmp_path) as connect:
        for mechanism, user, said in (
            ("PLAIN", b"anna", disabled),
            ("PLAIN", b"ben", expired),
            ("NTLM", b"anna", unknown),
        ):
            peer = await connect()
            peer.send(begin(kind, mechanism, b"\0%b\0secret" % user))
            assert (await peer.line()).startswith(said)
            await peer.close()


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("imap", "entered"), ("pop3", "open_maildrop"), ("sieve", "entered_here")],
)
async def test_who_is_right_and_not_served_here_is_in_the_log_too(
    kind: str,
    asked: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one whom a backend refers to another: the password was right, so it costs nothing, and nobody is counted."""

    async def elsewhere(*_: object) -> bytes:
        raise Refusal(Code.REFERRAL, "You are at home elsewhere", "imap://be2.test/")

    set_up("info", "json")
    monkeypatch.setattr(MADE.get(kind, KINDS[kind]), asked, elsewhere)
    gate = Gate(
        Old(), allow_plaintext=True, penalties=Penalties(0, 0), connections=ConnectionLimit(1)
    )
    async with dialogues(kind, gate, tmp_path) as connect:
        peer = await connect()
        for _ in range(2):
            peer.send(begin(kind, "PLAIN", message("PLAIN", RIGHT)))
            assert not is_good(kind, await peer.line())
        await peer.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [(line["event"], line["user"], line["problem"]) for line in lines if "user" in line]
    assert events == [("login.failed", "anna", "REFERRAL")] * 2
    assert gate.penalties.failures("127.0.0.1", "anna") == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_password_that_is_not_where_it_belongs_is_in_no_log(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As from a client that sends PLAIN without base64, goes on with what was refused, or speaks another protocol."""
    set_up("info", "json")
    gate = Gate(Old(), allow_plaintext=True, penalties=Penalties(0, 0))
    whole = begin(kind, "PLAIN", b"")
    sent = b"\0anna\0secret"
    async with dialogues(kind, gate, tmp_path) as connect:
        for line in (
            whole.replace(b" \r\n", b" %b\r\n" % sent).replace(b'""', b'"%b"' % sent),
            whole.partition(b"PLAIN")[0] + sent + b"\r\n",
            whole.partition(b"PLAIN")[0] + b" " + sent + b"\r\n",
            whole.partition(b"PLAIN")[0] + b"PLAIN" + sent + b"\r\n",
            base64.b64encode(sent) + b"\r\n",
            b"PASS secret\r\n",
        ):
            peer = await connect()
            peer.send(line)
            assert not is_good(kind, await peer.line())
            await peer.close()
    said = capfd.readouterr().err.lower()  # names of commands are put into capitals
    assert "malformed" in said
    assert "secret" not in said and base64.b64encode(sent).decode().lower() not in said


KNOWN = (
    b"n,,n=anna,r=x",
    b"n,a=anna,\x01auth=Bearer x\x01\x01",
    b"\0anna\0x",
    b"anna",
    b"",
    b"\x60\x28\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01\x00",
)


def odd_responses(chance: random.Random) -> list[bytes]:
    """One to six. Made from a number: drawn one by one they took longer than the exchange."""
    return [
        chance.choice(KNOWN) if chance.getrandbits(1) else chance.randbytes(chance.randrange(61))
        for _ in range(chance.randint(1, 6))
    ]


TICKETS = make_mechanisms(GssapiSettings(realms=("EXAMPLE.ORG",)))  # where the library is


@given(
    mechanism=st.sampled_from(
        ["PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "GSSAPI"]
    ),
    seed=st.integers(0, 2**64 - 1),
    initial=st.booleans(),
)
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_odd_octets_end_in_a_refusal(
    mechanism: str, seed: int, initial: bool, tmp_path: Path
) -> None:
    responses = odd_responses(random.Random(seed))
    note(repr(responses))

    class Both(New, UserFile):
        """Passwords, SCRAM and tokens."""

        check = UserFile.check
        verify = UserFile.verify
        lookup = UserFile.lookup
        depends_on = UserFile.depends_on

    async def exchange() -> None:  # hypothesis calls what returns at once
        async def no_wait(seconds: float) -> None:
            pass

        both = Both(tmp_path / "users", Settings(log2_cost=1, scram_iterations=4096))
        gate = Gate(
            both, allow_plaintext=True, penalties=Penalties(sleep=no_wait), mechanisms=TICKETS
        )
        rest = iter(responses)
        first = next(rest) if initial else None

        async def ask(challenge: bytes) -> bytes:
            try:
                return next(rest)
            except StopIteration:
                raise BadSyntax("cancelled") from None

        try:
            login, _ = await run_sasl(gate, mechanism, first, ask, Stub(), "imap")  # type: ignore[arg-type]
        except (Refusal, BadSyntax, UpstreamFailure):
            return
        assert login.user == "anna" and RIGHT in b"".join(responses)

    asyncio.run(exchange())
