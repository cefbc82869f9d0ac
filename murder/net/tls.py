"""TLS contexts, and who a peer's certificate says it is.

Between nodes both sides show a certificate of the cluster's authority: its DNS names say which node, its URI names
`murder:role:…` what it may be. Clients of mail need no certificate; one that they show must verify all the same.
"""

import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from murder.config import TlsConfig

ROLE_URI: Final = "murder:role:"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A certificate that was verified against the cluster's authority."""

    names: tuple[str, ...]  # DNS names, lower case
    roles: frozenset[str]

    @property
    def name(self) -> str:
        """The node's name: its first DNS name."""
        return self.names[0] if self.names else ""


def server_context(
    certificate: Path, key: Path, ca: Path | None, least_version: str = "1.2"
) -> ssl.SSLContext:
    """A context for listeners. With `ca`, clients may show a certificate, and nodes do. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _version(least_version)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate, key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: Path | None, certificate: Path | None, key: Path | None, verify: bool = True
) -> ssl.SSLContext:
    """A context for connections to other nodes. Without `ca`, the system's authorities count."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        context.load_verify_locations(ca)
    else:
        context.load_default_certs()
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


@functools.cache  # one context a process: STARTTLS and implicit TLS share it, a reload reaches both
def listening_context(tls: TlsConfig, *, public: bool) -> ssl.SSLContext | None:
    """The context of this node's listeners; None without certificates. `public`: the certificate for mail clients.

    Raises OSError, ssl.SSLError.
    """
    certificate, key = _shown_by(tls, public=public)
    if certificate is None or key is None:
        return None
    return server_context(certificate, key, tls.ca, tls.minimum_version)


def reload_context(context: ssl.SSLContext, tls: TlsConfig, *, public: bool) -> None:
    """Read the files again; new connections use them. Raises OSError, ssl.SSLError, and then nothing changed."""
    certificate, key = _shown_by(tls, public=public)
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
        context.minimum_version = _version(tls.minimum_version)
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)


def _shown_by(tls: TlsConfig, *, public: bool) -> tuple[Path | None, Path | None]:
    if public and tls.public_certificate is not None:
        return tls.public_certificate, tls.public_key
    return tls.certificate, tls.key


def _version(text: str) -> ssl.TLSVersion:
    return {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[text]


def read_certificate(shown: dict[str, Any] | None) -> PeerCertificate | None:
    """From `SSLObject.getpeercert()`: only verified certificates come out of it with content."""
    if not shown:
        return None
    names = [value.lower() for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    uris = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
    roles = frozenset(uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI))
    return PeerCertificate(tuple(names), roles)
