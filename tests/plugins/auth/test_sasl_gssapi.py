"""A real KDC, tickets of it, and who logs in by them: curl, and this node at others."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.api.auth import Identity
from murder.api.sasl import Mechanism
from murder.auth.exchange import run_sasl
from murder.auth.gate import Gate, NotAdmitted
from murder.auth.limit import ConnectionLimit
from murder.auth.penalty import Penalties
from murder.config.sections import MultiplexorConfig
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.kerberos import KerberosError, Library, principals_of
from murder.log import set_up
from murder.net.outgoing.proving import Tickets
from murder.net.tls import PeerCertificate
from murder.roles.frontend.multiplexor.pipe import Pipe
from murder.roles.frontend.probe import probe
from murder.serve.role import probe_auth
from plugins.sasl_gssapi import Exchange, Settings, look, make_mechanisms
from tests.conftest import cannot_run
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.kit.programs.kdc import REALM, Realm, kdc_in
from tests.kit.sections import server_section
from tests.kit.toml import Sections, write_config
from tests.kit.waiting import Naps, until_soon
from tests.rooms.auth.test_gate import Peer as Stub
from tests.rooms.frontend.server import Parts, Running, running_frontend
from tests.rooms.serve.test_client import KINDS, dialogue_of
from tests.rooms.serve.test_ways_in import Old, dialogues, is_challenge, is_good

SERVICES = ("imap", "pop", "lmtp", "sieve", "mupdate")
NODE = f"murder/be1.test@{REALM}"


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """It has anna, who has a ticket, and keys of all services of localhost, and of a node."""
    with kdc_in(tmp_path_factory.mktemp("kdc")) as realm:
        realm.add_user("anna")
        realm.add_user("anna/admin")
        realm.keytab("keytab", *(f"{service}/localhost" for service in SERVICES))
        realm.keytab("node.keytab", NODE.partition("@")[0])
        realm.ticket("anna")
        yield realm


@pytest.fixture
def realm(kdc: Realm) -> Path:
    return kdc.folder


class WithTickets(Parts):
    """The parts of a frontend that takes them."""

    def __init__(self, settings: Settings) -> None:
        self._rows = make_mechanisms(settings)

    def mechanisms(self) -> Sequence[Mechanism]:
        return self._rows


def curl(port: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    words = ["--login-options", "AUTH=GSSAPI", "-u", f"anna@{REALM}:", "-X", "NOOP"]
    return subprocess.run(
        ["curl", "-sv", *words, f"imap://localhost:{port}/"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


async def test_curl_logs_in_by_a_ticket(
    realm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("curl") is None:
        cannot_run("curl is not installed")
    taken = Settings(keytab=realm / "keytab", realms=(REALM,))
    async with running_frontend(tmp_path / "one", {}, {}, parts=WithTickets(taken)) as running:
        done = await asyncio.to_thread(curl, running.ports["imap"])
        assert done.returncode == 0, done.stderr
        assert "Logged in as anna" in done.stderr
        fake = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if fake is None:
            cannot_run("libfaketime is not installed")
        ahead = {"LD_PRELOAD": str(fake), "FAKETIME": "+10m"}
        late = await asyncio.to_thread(lambda: curl(running.ports["imap"], **ahead))
        assert late.returncode == 67, late.stderr
        assert "Clock skew too great; set both clocks" in caplog.text
    other = Settings(keytab=realm / "keytab", realms=("OTHER.ORG",))
    async with running_frontend(tmp_path / "two", {}, {}, parts=WithTickets(other)) as running:
        assert (await asyncio.to_thread(curl, running.ports["imap"])).returncode == 67
    assert "the principal anna@EXAMPLE.ORG is no user" in caplog.text


async def test_what_is_no_ticket_is_refused_and_said_why(
    realm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library, settings = Library(realm / "keytab"), Settings(realms=(REALM,))
    for token in (b"", b"\0", b"\x60\x03abc", os.urandom(200)):
        step = Exchange(library, settings).step(token)
        with pytest.raises(Refusal, match="was refused"):
            await step.proceed()  # type: ignore[union-attr]
    assert "a Kerberos ticket is refused" in caplog.text


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("Request ticket server %s kvno 3 not found in keytab; keytab is likely out of date", "ktadd"),
        ("Request ticket server %s kvno 2 enctype aes256-cts found in keytab but cannot decrypt ticket", "ktadd"),
        ("Request ticket server %s not found in keytab (ticket kvno 2)", "klist -k"),
        ("Server %s not found in Kerberos database", "addprinc -randkey"),
        ("Client anna@EXAMPLE.ORG not found in Kerberos database", "that principal is not in the KDC"),
        ("Key table entry not found", "make the keytab"),
    ],
)  # fmt: skip
def test_what_the_library_says_of_keys_has_its_own_cure(said: str, cure: str) -> None:
    assert cure in KerberosError(said.replace("%s", "imap/fe1.test@EXAMPLE.ORG")).cure


def test_a_keytab_that_cannot_be_read_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_mechanisms(Settings(keytab=tmp_path / "none", realms=(REALM,)))
    assert "no ticket will be taken" in caplog.text and "ktadd -k" in caplog.text


def looked(keytab: Path, **environment: str) -> str:
    """What `murder auth test` says of these keys, and the clock by which it looks."""
    file = keytab.parent / "murder.toml"
    sections: Sections = {
        "node": {"name": "fe1.test", "data": "data", "roles": ["frontend"]},
        "plugins": {"use": ["sasl_gssapi"]},
        "plugins.sasl_gssapi": {"keytab": str(keytab), "realms": [REALM]},
    }
    write_config(file, sections)
    done = subprocess.run(
        [sys.executable, "-m", "murder", "auth", "test", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == (0 if "GSSAPI: well" in done.stdout else 3), done.stderr
    return done.stdout


async def test_what_is_wrong_with_the_keys_the_clock_and_the_kdc_is_found_by_a_look(
    kdc: Realm,
) -> None:
    keytab = kdc.keytab("looked", "imap/fe9.test")
    assert "GSSAPI: well" in looked(keytab)
    fake = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if fake is None:
        cannot_run("libfaketime is not installed")
    for apart in ("+10m", "-10m"):
        assert "set both clocks (NTP)" in looked(keytab, LD_PRELOAD=str(fake), FAKETIME=apart)
    library = Library(keytab)
    kdc.stop()
    try:
        (fault,) = look(library, keytab)
        assert "Cannot contact any KDC" in fault.what and "is the KDC running" in fault.cure
    finally:
        kdc.start()
    kdc.keytab("newer", "imap/fe9.test")
    (fault,) = look(library, keytab)
    assert fault.cure == "the key is not the KDC's any more: `ktadd` it anew"
    for none in (kdc.folder / "none", kdc.folder / "krb5.conf"):
        (fault,) = look(library, none)
        assert "`ktadd -k`" in fault.cure
    rows = make_mechanisms(Settings(keytab=keytab, realms=(REALM,)))
    gate = Gate(Old(), mechanisms=rows)
    (found,) = [one async for one in probe_auth(gate)]
    assert (found.what, found.cure) == ("the login by GSSAPI", look(library, keytab)[0].cure)


@given(st.binary(max_size=80))
def test_what_is_no_keytab_has_no_keys(octets: bytes) -> None:
    for keytab in (octets, b"\x05\x02" + octets):
        with contextlib.suppress(ValueError):
            principals_of(keytab)


def test_a_ticket_of_another_mechanism_is_not_looked_at(realm: Path) -> None:
    spnego = bytes.fromhex("60080606") + bytes.fromhex("2b0601050502")
    with pytest.raises(KerberosError, match="another mechanism"):
        Library(realm / "keytab").accept(spnego)


def test_realms_must_be_said() -> None:
    with pytest.raises(Refusal, match="realms"):
        make_mechanisms(Settings())


class Anybody(Old):
    async def lookup(self, user: str) -> Identity | None:
        return Identity(user)


async def test_a_ticket_that_is_refused_is_no_guess_and_holds_up_nobody(realm: Path) -> None:
    """A clock that is wrong, a key that is old: whoever has one shows it again and again, beside others at that address."""
    naps = Naps()
    gate = Gate(
        Anybody(),
        mechanisms=make_mechanisms(Settings(keytab=realm / "keytab", realms=(REALM,))),
        penalties=Penalties(sleep=naps.sleep, clock=naps.clock, per_address=5),
        allow_plaintext=True,
    )

    async def none(challenge: bytes) -> bytes:
        raise AssertionError(challenge)

    async def show_an_old_one(peer: Stub) -> None:
        with pytest.raises(NotAdmitted, match="refused"):
            await run_sasl(gate, "GSSAPI", b"\x60\x03abc", none, peer, "imap")  # type: ignore[arg-type]

    for _ in range(20):
        await show_an_old_one(Stub())
    assert naps.taken == [2.0] * 20
    node = Stub()
    node.certificate = PeerCertificate(("fe1.test",), frozenset({"frontend"}))  # type: ignore[assignment]
    await show_an_old_one(node)
    proof = Tickets(None).proof("be1.test", "imap", "localhost", "", "")
    assert proof.answer is not None
    first = await proof.answer(b"")
    login, _ = await run_sasl(gate, "GSSAPI", first, proof.answer, Stub(), "imap")  # type: ignore[arg-type]
    assert login.user == "anna"
    (await gate.attempt("anna", b"secret", Stub())).right()  # type: ignore[arg-type]
    assert len(naps.taken) == 20


async def shown_to(peer: Peer, kind: str, tickets: Tickets, user: str, name: str) -> bytes:
    """The last line of what is said to a ticket."""
    proof = tickets.proof("be1.test", kind, "localhost", user, name)
    begin = {"imap": b"a AUTHENTICATE GSSAPI", "mupdate": b'a AUTHENTICATE "GSSAPI"'}
    begin["sieve"] = b'AUTHENTICATE "GSSAPI"'
    peer.send(begin.get(kind, b"AUTH GSSAPI") + b"\r\n")
    for _ in range(5):
        line: bytes = await peer.line()
        if kind == "mupdate":
            if line.startswith(b"a "):
                return line
        elif not is_challenge(kind, line):
            return line
        elif kind == "sieve":
            line = await peer.line() if line[:1] == b"{" else line.strip(b'"')
        else:
            line = line.partition(b" ")[2]
        response = await proof.reply(line)
        peer.send((b'"%b"' % response if kind == "sieve" else response) + b"\r\n")
    raise AssertionError("it does not end")


async def by_ticket(
    kind: str, keytab: Path, tickets: Tickets, user: str, name: str, times: int = 1
) -> list[bytes]:
    """What a server of this kind says to it, on so many connections, all of which stay until the end."""
    taken = make_mechanisms(Settings(keytab=keytab, realms=(REALM,), nodes=(NODE,)))
    gate = Gate(
        Anybody(),
        mechanisms=taken,
        proxies=["murder/be1.test"],
        penalties=Penalties(0, 0),
        connections=ConnectionLimit(1),
        allow_plaintext=True,
    )
    async with dialogues(kind, gate, keytab.parent / kind) as connect:
        async with contextlib.AsyncExitStack() as peers:
            lines = []
            for _ in range(times):
                peer = await connect()
                peers.push_async_callback(peer.close)
                lines.append(await shown_to(peer, kind, tickets, user, name))
            return lines


@pytest.mark.parametrize("kind", KINDS)
async def test_every_protocol_takes_a_ticket_and_shows_one(
    kind: str, kdc: Realm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    keytab = kdc.folder / "keytab"
    line, again = await by_ticket(kind, keytab, Tickets(None), "", "", times=2)
    assert is_good(kind, line), line
    # as by any way in: a user has so many connections (of LMTP and MUPDATE the node has), and each is in the log
    is_in = kind in ("lmtp", "mupdate")
    assert is_good(kind, again) == is_in
    node = Tickets(kdc.folder / "node.keytab")
    if kind != "mupdate":  # where nodes speak for themselves
        (line,) = await by_ticket(kind, keytab, node, "anna", "")
        assert is_good(kind, line)
        (line,) = await by_ticket(kind, keytab, Tickets(None), "ben", "")
        assert not is_good(kind, line)
    lines = [json.loads(text) for text in capfd.readouterr().err.splitlines()]
    events = [(each["event"], each["user"]) for each in lines if "user" in each]
    assert events[0] == ("login.succeeded", "anna")
    assert events[1] == ("login.succeeded" if is_in else "login.failed", "anna")


@contextlib.asynccontextmanager
async def before_a_backend(
    gate: Gate, kdc: Realm, folder: Path, mode: str
) -> AsyncIterator[Running]:
    """A frontend of a mode; be1.test, with this gate, is anna's, and to be entered by the node's ticket."""
    async with listening(lambda one: dialogue_of("imap", one, gate, folder)) as place:
        be1 = server_section(
            address="127.0.0.1", imap=place.port, tls="none", auth="gssapi", tls_name="localhost"
        )
        async with running_frontend(
            folder,
            {},
            {"anna": "be1.test"} if mode == "murder" else {},
            sections={"be1.test": be1},
            mode=mode,
            multiplexor=MultiplexorConfig(find=("hash",), hash_servers=("be1.test",)),
            keytab=kdc.folder / "node.keytab",
            proxy_user="",
        ) as running:
            yield running


async def test_a_multiplexor_enters_a_server_by_its_ticket(kdc: Realm, tmp_path: Path) -> None:
    """Each login by all steps: a ticket is no single word."""
    taken = make_mechanisms(Settings(keytab=kdc.folder / "keytab", realms=(REALM,), nodes=(NODE,)))
    gate = Gate(Anybody(), mechanisms=taken, proxies=["murder/be1.test"], allow_plaintext=True)
    async with before_a_backend(gate, kdc, tmp_path, "multiplexor") as running:
        for _ in range(2):
            peer = await Peer.at(running.ports["imap"])
            await peer.line()
            await peer.ok(b"LOGIN anna secret")
            assert running.role.frontend is not None
            (one,) = running.role.frontend.sessions
            assert type(one) is Pipe
            peer.send(b"z LOGOUT\r\n")
            assert (await peer.until(b"z "))[-1] == b"z OK Completed"
            await until_soon(lambda: not running.role.frontend.sessions)  # type: ignore[union-attr]
            await peer.close()


@pytest.mark.parametrize("mode", ["murder", "multiplexor"])
async def test_a_server_that_takes_no_ticket_of_ours_is_told_with_the_cure(
    mode: str, kdc: Realm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the log when a session wants to go there, and to `murder ctl doctor`."""
    set_up("info", "json")
    taken = make_mechanisms(Settings(keytab=kdc.folder / "keytab", realms=("OTHER.ORG",)))
    gate = Gate(Anybody(), mechanisms=taken, penalties=Penalties(0, 0), allow_plaintext=True)
    async with before_a_backend(gate, kdc, tmp_path, mode) as running:
        peer = await Peer.at(running.ports["imap"])
        await peer.line()
        peer.send(b"a LOGIN anna secret\r\nb SELECT INBOX\r\n")
        assert b"UNAVAILABLE" in (await peer.until(b"a " if mode == "multiplexor" else b"b "))[-1]
        await peer.close()
        frontend = running.role.frontend
        assert frontend is not None
        (seen,) = [one async for one in probe(frontend) if one.what == "be1.test"]
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (problem, *_) = [one["problem"] for one in lines if one["event"] == "upstream.failed"]
    assert "ticket was refused" in problem or "is no user here" in problem
    assert "its log says why: a clock (NTP)" in problem
    if mode == "murder":  # a multiplexor's servers may be anybody's: none logs in there to look
        assert (seen.kind, seen.cure[:13]) == ("auth", "its log says "), seen


async def refused(tickets: Tickets, host: str = "localhost", name: str = "") -> str:
    proof = tickets.proof("be1.test", "imap", host, "", name)
    with pytest.raises(UpstreamFailure) as caught:
        await proof.reply(b"")
    assert caught.value.kind is UpstreamKind.AUTH
    return caught.value.text


async def test_what_is_wrong_with_a_nodes_ticket_is_said_with_the_cure(
    kdc: Realm, tmp_path: Path
) -> None:
    node = Tickets(kdc.folder / "node.keytab")
    assert "name this node's keytab" in await refused(Tickets(tmp_path / "none"))
    assert "`addprinc -randkey SERVICE/HOST`" in await refused(node, host="elsewhere.test")
    assert "`klist -k` shows whose keys" in await refused(node, name=f"murder/other@{REALM}")
    kdc.keytab("other", "murder/old.test")
    kdc.keytab("newer", "murder/old.test")  # the first one's key counts no more
    assert "`ktadd` it anew" in await refused(Tickets(kdc.folder / "other"))
    kdc.keytab("late", "murder/late.test")
    kdc.stop()
    try:
        assert "is the KDC running" in await refused(Tickets(kdc.folder / "late"))
    finally:
        kdc.start()
