"""A server's certificate that has ended, or begins later by the clock here, is no matter of its authority: what is told is
the clock, or a new certificate.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from murder.api.auth import Diagnoses
from plugins.auth_http import AuthHttp
from plugins.auth_http import Settings as HttpSettings
from plugins.auth_ldap.hooks import make_auth_backend
from plugins.auth_ldap.settings import Settings as LdapSettings
from plugins.auth_oauth import OAuth
from plugins.auth_oauth import Settings as OauthSettings

DAY = timedelta(days=1)


@asynccontextmanager
async def server_in(folder: Path, begins_in: timedelta) -> AsyncIterator[int]:
    """Its port; `cert.pem` is its certificate, valid for a day, and its authority."""
    begins = datetime.now(UTC) + begins_in
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begins).not_valid_after(begins + DAY)
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, own = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, own, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(end, "localhost", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def plugin(kind: str, port: int, ca: Path) -> Diagnoses:
    url = f"https://localhost:{port}"
    if kind == "auth_http":
        return AuthHttp(HttpSettings(url=url, ca=ca))
    if kind == "auth_oauth":
        return OAuth(OauthSettings(issuer=url, audience=("mail",), ca=ca))
    return make_auth_backend(
        LdapSettings(servers=(f"ldaps://localhost:{port}",), ca=ca, base="dc=example")
    )


@pytest.mark.parametrize("kind", ["auth_http", "auth_ldap", "auth_oauth"])
@pytest.mark.parametrize(
    ("begins_in", "what", "cure"),
    [
        (DAY, "not yet valid", "set the clock here (NTP)"),
        (-2 * DAY, "has expired", "renew it there"),
    ],
)
async def test_dates_are_told_as_dates(
    kind: str, begins_in: timedelta, what: str, cure: str, tmp_path: Path
) -> None:
    async with server_in(tmp_path, begins_in) as port:
        asked = plugin(kind, port, tmp_path / "cert.pem")
        (fault,) = [one for one in await asked.diagnose() if "certificate" in one.what]
    assert what in fault.what and "; " not in fault.what
    assert fault.cure.startswith(cure) and "authority" not in fault.cure
