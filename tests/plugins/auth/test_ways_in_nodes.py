"""Kerberos tickets and certificates of users at nodes as they run: each counts and is logged as any way in, whether the user
is at this node, behind it, or passed on as a whole. Neither can be guessed, so what is wrong holds up nobody else.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

import pytest
from cryptography import x509

from murder.auth.penalty import Penalties
from murder.config.sections import TlsConfig
from murder.log import set_up
from murder.model.protocol import protocol_named
from murder.net.outgoing.proving import Tickets
from murder.net.tls import listening_context
from murder.pki.authority import init_authority, issue
from plugins.sasl_gssapi import Settings, make_mechanisms
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.kit.programs.kdc import REALM, Realm, kdc_in
from tests.kit.waiting import Naps, until_soon
from tests.plugins.auth.test_sasl_gssapi import SERVICES, shown_to
from tests.rooms.serve.test_user_certificates import Authority
from tests.rooms.serve.test_ways_in import begin, is_good
from tests.rooms.unified.nodes import Node, Parts, running_nodes
from tests.rooms.unified.test_ways_in import BYE, ROLES

KINDS = ("imap", "pop3", "sieve")
WAYS = list(product(KINDS, ("GSSAPI", "EXTERNAL")))
GREETINGS = {"imap": b"* OK", "pop3": b"+OK", "sieve": b"OK"}
NO_TICKET = b"\x60\x03abc"


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """anna has a ticket of it."""
    with kdc_in(tmp_path_factory.mktemp("kdc")) as realm:
        realm.add_user("anna")
        realm.keytab("keytab", *(f"{service}/localhost" for service in SERVICES))
        realm.ticket("anna")
        yield realm


class Doors:
    """Ports of a node, without TLS and with it, and who comes there: anna, with a ticket and a certificate."""

    def __init__(self, node: Node, by_tls: dict[str, int], certificate: Path) -> None:
        self._node, self._by_tls = node, by_tls
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._context.load_cert_chain(certificate)

    async def come(self, kind: str, way: str) -> Peer:
        if way == "EXTERNAL":
            peer = await Peer.at("127.0.0.1", self._by_tls[kind], tls=self._context)
        else:
            peer = await Peer.at(self._node.ports[kind])
        await peer.until(GREETINGS[kind])
        return peer


@asynccontextmanager
async def doors_of(node: Node, folder: Path) -> AsyncIterator[Doors]:
    init_authority(folder)
    own, users = issue(folder, "n1.test", ["frontend", "backend"]), Authority(folder)
    files = TlsConfig(folder / "ca.pem", own.certificate, own.key, users_ca=users.file)
    by_tls = {}
    async with AsyncExitStack() as stack:
        for kind in KINDS:
            serve = node.role.services()[protocol_named(kind)]
            context = listening_context(files, public=True, users=True)
            place = await stack.enter_async_context(listening(serve, tls=context))
            by_tls[kind] = place.port
        certificate = users.issue("Anna Arendt", x509.RFC822Name("anna@example.org"))
        yield Doors(node, by_tls, certificate)


async def said_to(peer: Peer, kind: str, way: str, *, right: bool) -> bytes:
    """The last line of the answer to anna's ticket or certificate, or to what is none of theirs: a forged one, another's
    mailbox."""
    if way == "GSSAPI" and right:
        return await shown_to(peer, kind, Tickets(None), "", "")
    response = NO_TICKET if way == "GSSAPI" else b"" if right else b"zoe"
    line = begin(kind, way, response)
    if not response and kind != "sieve":
        line = line.replace(b" \r\n", b" =\r\n")  # RFC 4422 §4: there is one, and it is empty
    peer.send(line)
    return bytes(await peer.line())


@pytest.mark.parametrize("role", ROLES)
async def test_tickets_and_certificates_are_ways_in_as_others(
    role: str,
    kdc: Realm,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_up("info", "json")
    rows = make_mechanisms(Settings(keytab=kdc.folder / "keytab", realms=(REALM,)))
    monkeypatch.setattr(Parts, "mechanisms", lambda parts: rows)
    homes, settings = ROLES[role]
    naps = Naps()
    async with (
        running_nodes(tmp_path, homes, max_connections_per_user=1, **settings) as murder,
        doors_of(murder.nodes["n1.test"], tmp_path) as doors,
    ):
        gate = murder.nodes["n1.test"].frontend.gate
        gate.penalties = Penalties(sleep=naps.sleep, clock=naps.clock)
        for kind, way in WAYS * 2:
            capfd.readouterr()
            naps.taken.clear()
            peer = await doors.come(kind, way)
            assert not is_good(kind, await said_to(peer, kind, way, right=False))
            assert gate.penalties.failures("127.0.0.1", "anna") == 0
            assert naps.taken == ([2.0] if way == "GSSAPI" else [])
            line = await said_to(peer, kind, way, right=True)
            assert is_good(kind, line), (kind, way, line)
            other = await doors.come(kind, way)
            assert not is_good(kind, await said_to(other, kind, way, right=True)), (kind, way)
            await other.close()
            peer.send(BYE[kind])
            while await peer.line():
                pass
            await peer.close()
            await until_soon(lambda: not gate.connections.counter._of)
            lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
            logins = [
                tuple(map(line.get, ("event", "user", "protocol", "mechanism", "peer", "problem")))
                for line in lines
                if line["event"].startswith("login.") and line["role"] == "frontend"
            ]
            problem = "AUTHENTICATIONFAILED" if way == "GSSAPI" else "AUTHORIZATIONFAILED"
            who = ("anna", kind, way, "127.0.0.1")
            nobody = ("", *who[1:])  # a ticket that cannot be read has no name
            assert logins == [
                ("login.failed", *(nobody if way == "GSSAPI" else who), problem),
                ("login.succeeded", *who, None),
                ("login.failed", *who, "LIMIT"),
            ], (kind, way)
