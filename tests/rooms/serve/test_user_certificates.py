"""Users log in by certificates of an authority of theirs, which says nothing of nodes, whatever stands in them."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from murder.auth.gate import Gate
from murder.auth.limit import ConnectionLimit
from murder.auth.penalty import Penalties
from murder.config.sections import TlsConfig
from murder.log import set_up
from murder.net.connection import Connection
from murder.net.tls import end_of, listening_context, name_in
from murder.pki.authority import init_authority, issue
from murder.serve.client import ClientDialogue
from plugins.auth_file import Settings, UserFile
from tests.kit.listening import listening
from tests.kit.peer import Peer
from tests.rooms.serve.test_client import dialogue_of
from tests.rooms.serve.test_ways_in import begin, is_good

NOW = datetime.now(UTC)


class Authority:
    """Of a site's users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "of-users"
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "users of example.org")])
        self.file = folder / "users-ca.pem"
        made = self._builder(self.name, self.key)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write(self.file, made.sign(self.key, hashes.SHA256()))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
        )

    def _write(self, file: Path, certificate: x509.Certificate) -> None:
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, user: str, *names: x509.GeneralName) -> Path:
        """A certificate, with its key in the same file."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)]), key)
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        file = self.folder / f"{user}.pem"
        self._write(file, made.sign(self.key, hashes.SHA256()))
        octets = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_bytes(file.read_bytes() + octets)
        return file


@asynccontextmanager
async def node_with_users(
    folder: Path, kind: str = "imap", *, public: bool = True
) -> AsyncIterator[tuple[int, Authority]]:
    """`public`: as a frontend does, else as a backend."""
    init_authority(folder)
    node = issue(folder, "fe1.test", ["frontend"])
    issue(folder, "be1.test", ["backend"])
    users = Authority(folder)
    backend = UserFile(folder / "users", Settings(log2_cost=1))
    await backend.set_passwords({"anna": b"secret", "ben": b"secret"})
    gate = Gate(
        backend,
        penalties=Penalties(0, 0),
        domains=False,
        masters=["ben"],
        connections=ConnectionLimit(1),
    )
    files = TlsConfig(
        ca=folder / "ca.pem", certificate=node.certificate, key=node.key, users_ca=users.file
    )
    tls = listening_context(files, public=public, users=True)

    def serve(connection: Connection) -> ClientDialogue:
        return dialogue_of(kind, connection, gate, folder)

    async with listening(serve, tls=tls) as place:
        yield place.port, users


async def said(port: int, certificate: Path | None, authzid: str, key: Path | None = None) -> str:
    """The greeting and the answer to AUTHENTICATE EXTERNAL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    greeting = await reader.readline()
    response = base64.b64encode(authzid.encode()) or b"="
    writer.write(b"a AUTHENTICATE EXTERNAL " + response + b"\r\nb WHOAMI\r\n")
    answer = await reader.readline()
    if answer.startswith(b"a OK"):
        answer += await reader.readline()
    writer.close()
    return f"{'EXTERNAL' if b'AUTH=EXTERNAL' in greeting else ''} {answer.decode()}"


async def test_a_user_is_in_by_a_certificate(tmp_path: Path) -> None:
    async with node_with_users(tmp_path) as (port, users):
        mail = x509.RFC822Name
        anna = users.issue("Anna Arendt", mail("anna@example.org"))
        line = await said(port, anna, "")
        assert line.startswith("EXTERNAL a OK") and "anna False" in line
        assert "anna False" in await said(port, anna, "anna")
        assert "a NO [AUTHORIZATIONFAILED]" in await said(port, anna, "ben")
        ben = users.issue("ben", mail("ben@example.org"))
        assert "anna False" in await said(port, ben, "anna")  # a master
        for stranger in (users.issue("x", mail("nobody@example.org")), users.issue("anna")):
            assert "a NO [AUTHENTICATIONFAILED]" in await said(port, stranger, "")
        assert (await said(port, None, "")).startswith(" a NO")


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("kind", ["imap", "pop3", "lmtp", "sieve"])
async def test_frontends_and_backends_take_them_in_every_protocol(
    kind: str, public: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And treat them as any way in: the log names who it was, and a user has as many connections."""
    set_up("info", "json")
    async with (
        node_with_users(tmp_path, kind, public=public) as (port, users),
        AsyncExitStack() as open_,
    ):
        anna = users.issue("Anna", x509.RFC822Name("anna@example.org"))
        nobody = users.issue("x", x509.RFC822Name("nobody@example.org"))
        has_limit = kind != "lmtp"  # there it is the node's
        for certificate, is_in in ((nobody, False), (anna, True), (anna, not has_limit)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(certificate)
            peer = await Peer.at("127.0.0.1", port, tls=context)
            open_.push_async_callback(peer.close)
            await (peer.until(b"OK") if kind == "sieve" else peer.line())
            peer.send(begin(kind, "EXTERNAL", b"").replace(b" \r\n", b" =\r\n"))
            assert is_good(kind, await peer.line()) == is_in
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [(line["event"], line["user"]) for line in lines if line["event"].startswith("login.")]
    assert events[:2] == [("login.failed", "nobody"), ("login.succeeded", "anna")]


async def test_a_users_authority_makes_no_nodes(tmp_path: Path) -> None:
    async with node_with_users(tmp_path) as (port, users):
        names = [
            x509.DNSName("be1.test"),
            x509.UniformResourceIdentifier("murder:role:backend"),
            x509.UniformResourceIdentifier("murder:role:operator"),
        ]
        false = users.issue("be1.test", *names)
        for authzid in ("", "anna", "be1.test"):
            assert "a NO [AUTHENTICATIONFAILED]" in await said(port, false, authzid)
        true = tmp_path / "be1.test.pem"
        assert "anna False" in await said(port, true, "anna", tmp_path / "be1.test.key")


@pytest.mark.parametrize(
    ("where", "name"), [("email", "a@b.c"), ("cn", "Anna"), ("dns", "host"), ("uid", "")]
)
def test_a_certificate_has_several_names(tmp_path: Path, where: str, name: str) -> None:
    made = Authority(tmp_path).issue("Anna", x509.DNSName("host"), x509.RFC822Name("a@b.c"))
    der = x509.load_pem_x509_certificate(made.read_bytes()).public_bytes(serialization.Encoding.DER)
    assert name_in(der, where) == name
    assert name_in(b"odd", where) == ""
    assert end_of(der) == int((NOW + timedelta(days=1)).timestamp())
    assert end_of(b"odd") is None
