"""TLS contexts, and who a peer's certificate says it is.

Between nodes both sides show a certificate of the cluster's authority: its DNS names say which node, its URI names
`murder:role:…` what it may be. Clients of mail need no certificate; one that they show must verify all the same.
What was taken back (`tls.crl`, `tls.revoked`) fails in the handshake, as an unknown authority's does. A reload makes new
contexts, never changes old ones: OpenSSL can add authorities to a context and not take one out, and a session that is
resumed (RFC 8446 §2.2) shows no certificate again, so tickets must end with the trust they were given under.
"""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from weakref import WeakSet

from cryptography import x509
from cryptography.x509.oid import NameOID

from murder.config import TlsConfig
from murder.log import logger
from murder.pki.authority import AuthorityError, has_signed, serial_text
from murder.pki.trust import Trust, read_trust

MOST_SHOWN: Final = 256  # certificates that a context remembers: 2 KiB each
MOST_RECORDS: Final = 500  # of one turn: a quarter of a megabyte of them may have an octet each
RECORD_OCTETS: Final = 16 * 1024  # the most that one reading can bring (RFC 8446 §5.1)
ROLE_URI: Final = "murder:role:"
MAX_USER: Final = 256  # characters

log = logger()


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A certificate that was verified against the cluster's authority."""

    names: tuple[str, ...]  # DNS names, lower case
    roles: frozenset[str]
    octets: bytes = field(default=b"", repr=False, compare=False)  # DER
    is_user: bool = False  # of the users' authority: it says nothing of a node

    @property
    def name(self) -> str:
        """The node's name: its first DNS name."""
        return self.names[0] if self.names else ""


class HasPeer(Protocol):
    """A connection whose other end has shown a certificate."""

    certificate: PeerCertificate | None

    def abort(self) -> None: ...


class HalfOpenTls(ssl.SSLObject):
    """A handshake fails also where the other end's certificate was taken back; and the other end's close_notify closes its
    half of the connection only (RFC 8446 §6.1), where `on_close_notify` is set: event loops close both at once. A loop reads
    as many records as there are; here it is told after `MOST_RECORDS` that there are no more, and `on_many` is called, which
    must make it read on. See `beginning`, too."""

    incoming: ssl.MemoryBIO
    on_close_notify: Callable[[], None] | None = None
    on_many: Callable[[], None] | None = None
    has_ended = False
    records = 0  # read since the loop was made to stop
    _records_then = 0

    def call_plainly(self) -> None:
        """What a loop calls for each record, and the library only passes on, has no step between."""
        tls = self._sslobj  # type: ignore[attr-defined] # see `read`
        self.write = tls.write  # type: ignore[method-assign] # with the same arguments
        self.pending = tls.pending  # type: ignore[method-assign] # likewise

    def read_nothing(self) -> None:
        """Until `begin_reading`."""
        self.records = self._records_then = MOST_RECORDS
        self.on_many = _not_yet

    def begin_reading(self, on_many: Callable[[], None] | None = None) -> None:
        """From now on this is told of many; at once where nothing could be read so far. Without, all is read."""
        self.on_many = on_many
        if self._records_then:
            self.records = self._records_then = 0
            if on_many is not None:
                on_many()

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if isinstance(context, NodeContext) and (context.trust.revoked or context.successor):
            _refuse_distrusted(self, context)

    def getpeercert(self, binary_form: bool = False) -> Any:
        """A loop asks for its fields at the end of the handshake and keeps them with each connection, where nobody reads
        them: it gets none. `fields` has them."""
        return super().getpeercert(binary_form=True) if binary_form else None

    def fields(self) -> Any:
        """Of the other end's certificate; nothing where it was not verified."""
        return super().getpeercert()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """As a loop calls it. At the end of the peer's half it is told that there is nothing to read yet. One octet that is
        never decrypted makes the loop, whose limit is set to 0 then, read no more: it would take the end of TCP, which may
        follow at once, for the end of both halves."""
        tls = self._sslobj  # type: ignore[attr-defined] # `super().read` is the same, one call more for every read
        if self.records >= MOST_RECORDS and self.on_many is not None:
            self.records = self._records_then
            self.on_many()
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "its turn is over")
        size = len if len < RECORD_OCTETS else RECORD_OCTETS  # `min` is a call
        octets = tls.read(size) if buffer is None else tls.read(len, buffer)
        self.records += 1
        if not octets and self.on_close_notify is not None:
            if not self.has_ended:
                self.has_ended = True
                self.incoming.write(b"\0")
                self.on_close_notify()
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the peer sends no more")
        return octets


def _not_yet() -> None:
    """Who will hear what comes has not said so."""


class NodeContext(ssl.SSLContext):
    """What a node believes of others, and who has shown it a certificate under that."""

    trust: Trust
    # who came before a reload, and begins TLS behind it, is looked at by this too
    successor: Trust | None
    connections: "WeakSet[HasPeer]"
    begins = 0  # see `beginning`
    takes_users: bool  # there is a second authority, whose certificates are users'
    # that were verified and read; one for all who show the same
    shown: "dict[bytes, PeerCertificate]"

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *words: Any, **more: Any
    ) -> HalfOpenTls:
        tls = super().wrap_bio(incoming, outgoing, *words, **more)
        assert isinstance(tls, HalfOpenTls)
        tls.incoming = incoming
        tls.call_plainly()
        if self.begins:
            tls.read_nothing()
        return tls


@contextlib.contextmanager
def beginning(context: ssl.SSLContext) -> Iterator[None]:
    """While TLS is put under a connection that was there before. A loop would read on behind the handshake before who asked
    for it goes on: what comes would be answered, or held off, by the transport of before. So TLS made of this context
    meanwhile reads nothing until `begin_reading`; implicit TLS begins that in time."""
    if not isinstance(context, NodeContext):
        yield
        return
    context.begins += 1
    try:
        yield
    finally:
        context.begins -= 1


_contexts: "WeakSet[NodeContext]" = WeakSet()  # of this process, while something uses them


def _context(protocol: int, trust: Trust) -> NodeContext:
    context = NodeContext(protocol)
    context.trust = trust
    context.successor = None
    context.connections = WeakSet()
    context.takes_users = False
    context.shown = {}
    context.sslobject_class = HalfOpenTls
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _contexts.add(context)
    return context


def _refuse_distrusted(tls: ssl.SSLObject, context: NodeContext) -> None:
    """Raise SSLCertVerificationError for a certificate that was taken back."""
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        return
    trust = context.successor or context.trust
    if why := trust.objection(certificate, datetime.now(UTC), context.trust):
        serial = serial_text(x509.load_der_x509_certificate(certificate).serial_number)
        verified = read_certificate(_fields(tls), certificate)
        name = verified.name if verified is not None else ""
        log.warning("tls.revoked", name=name, serial=serial, problem=why)
        error = ssl.SSLCertVerificationError(1, f"the certificate {serial} of {name} is {why}")
        error.verify_message = f"it is {why} (serial number {serial})"
        raise error


def server_context(
    certificate: Path,
    key: Path,
    ca: Path | None,
    least_version: str = "1.2",
    trust: Trust | None = None,
    users_ca: Path | None = None,
    tickets: bool = True,
) -> NodeContext:
    """A context for listeners. With `ca`, clients may show a certificate, and nodes do; with `users_ca` users do. Without
    `tickets` no session of TLS 1.3 is resumed: nodes never do, and what a ticket costs OpenSSL, some KiB of buffers, would
    stay with each of their connections. Raises OSError, ssl.SSLError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, trust or Trust())
    context.minimum_version = _version(least_version)
    context.load_cert_chain(certificate, key)
    # one is enough: who comes again gets another; OpenSSL gives two unless it is told
    context.num_tickets = 1 if tickets else 0
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    if users_ca is not None:
        context.load_verify_locations(users_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.takes_users = True
    return context


def client_context(
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    verify: bool = True,
    trust: Trust | None = None,
) -> NodeContext:
    """A context for connections to other nodes. Without `ca`, the system's authorities count."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, trust or Trust())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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


def calling_context(tls: TlsConfig, ca: Path | None = None) -> NodeContext:
    """A new context for connections to other nodes, with this node's certificate; `ca` is who signs that of a server which
    is no node, and then nothing that the nodes believe counts there. Raises OSError, ssl.SSLError."""
    if ca is not None:
        context = client_context(ca, tls.certificate, tls.key)
        _contexts.discard(context)
        return context
    return client_context(tls.ca, tls.certificate, tls.key, trust=trust_of(tls))


_listening: dict[tuple[TlsConfig, bool, str, bool], NodeContext | None] = {}


def listening_context(
    tls: TlsConfig, *, public: bool, node: str = "", users: bool = False
) -> NodeContext | None:
    """The context of this node's listeners; None without certificates. `public`: the certificate for mail clients, but
    for who asks for the name `node` (a unified node's own): that is another node, which knows the other one only.
    `users`: their certificates are taken, too, as they are where it is public.
    One a process until `renew_contexts`: STARTTLS and implicit TLS share it. Raises OSError, ssl.SSLError.
    """
    key = (tls, public, node, users or public)
    if key not in _listening:
        _listening[key] = _make_listening(*key)
    return _listening[key]


def _make_listening(tls: TlsConfig, public: bool, node: str, users: bool) -> NodeContext | None:
    context = _make_context(tls, public=public, users=users)
    if context is None or not node or not public or tls.public_certificate is None:
        return context
    nodes = _make_context(tls, public=False, users=False)
    name = node.lower()

    def choose(connection: ssl.SSLObject, called: str | None, _: ssl.SSLContext) -> None:
        if called is not None and called.lower() == name and nodes is not None:
            connection.context = nodes

    context.sni_callback = choose
    return context


def _make_context(tls: TlsConfig, *, public: bool, users: bool) -> NodeContext | None:
    certificate, key = _shown_by(tls, public=public)
    if certificate is None or key is None:
        return None
    users_ca = tls.users_ca if users else None
    return server_context(
        *(certificate, key, tls.ca, tls.minimum_version, trust_of(tls), users_ca), tickets=public
    )


def renew_contexts(tls: TlsConfig) -> None:
    """Read the files again: `listening_context` gives new contexts from now on. Raises OSError, ssl.SSLError, and then
    nothing has changed."""
    kinds = {(public, node, users) for _, public, node, users in _listening}
    kinds |= {(False, "", False), (True, "", True)}
    fresh = {(tls, *kind): _make_listening(tls, *kind) for kind in kinds}
    _listening.clear()
    _listening.update(fresh)


def trust_of(tls: TlsConfig) -> Trust:
    """Raises ssl.SSLError where a file cannot be read."""
    try:
        return read_trust(tls.ca, tls.crl, tls.revoked)
    except AuthorityError as error:
        raise ssl.SSLError(1, str(error)) from None


def distrusted(fresh: Trust) -> Iterator[tuple[HasPeer, str]]:
    """The connections of this process, to and from other nodes and operators, whose certificates were believed and are no
    longer, and why. Handshakes that are under way, or still to come, by a context of before are judged by `fresh`."""
    now = datetime.now(UTC)
    for context in list(_contexts):
        if context.trust != fresh:
            context.successor = fresh
        judged: dict[bytes, str] = {}  # many connections, few certificates
        for connection in list(context.connections):
            certificate = connection.certificate
            octets = certificate.octets if certificate is not None else b""
            if octets and octets not in judged:
                judged[octets] = fresh.objection(octets, now, context.trust)
            if why := judged.get(octets, ""):
                yield connection, why


def peer_of(tls: ssl.SSLObject, connection: HasPeer) -> PeerCertificate | None:
    """Who the other end has shown it is, verified; None where it has shown nothing. Its context knows the connection."""
    octets = tls.getpeercert(binary_form=True)
    if not octets:
        return None
    context = tls.context
    if not isinstance(context, NodeContext):
        return read_certificate(_fields(tls), octets)
    certificate = context.shown.get(octets) if context.verify_mode != ssl.CERT_NONE else None
    if certificate is None:
        verified = _fields(tls)
        if not verified:
            return None
        if context.takes_users and not _is_of_cluster(octets, context.trust):
            certificate = PeerCertificate((), frozenset(), octets, is_user=True)
        else:
            certificate = read_certificate(verified, octets)
        assert certificate is not None
        if len(context.shown) >= MOST_SHOWN:
            context.shown.clear()
        context.shown[octets] = certificate
    if not certificate.is_user:
        context.connections.add(connection)
    return certificate


def _fields(tls: ssl.SSLObject) -> dict[str, Any] | None:
    fields: dict[str, Any] | None
    fields = tls.fields() if isinstance(tls, HalfOpenTls) else tls.getpeercert()
    return fields


def _is_of_cluster(octets: bytes, trust: Trust) -> bool:
    """Whether an authority of the nodes has signed it: OpenSSL tells only that one of all authorities has."""
    certificate = x509.load_der_x509_certificate(octets)
    return any(has_signed(authority, certificate) for authority in trust.authorities)


def _shown_by(tls: TlsConfig, *, public: bool) -> tuple[Path | None, Path | None]:
    if public and tls.public_certificate is not None:
        return tls.public_certificate, tls.public_key
    return tls.certificate, tls.key


def _version(text: str) -> ssl.TLSVersion:
    return {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[text]


def read_certificate(fields: dict[str, Any] | None, octets: bytes = b"") -> PeerCertificate | None:
    """From `_fields`: only verified certificates come out of it with content."""
    if not fields:
        return None
    names = [value.lower() for kind, value in fields.get("subjectAltName", ()) if kind == "DNS"]
    uris = [value for kind, value in fields.get("subjectAltName", ()) if kind == "URI"]
    roles = frozenset(uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI))
    return PeerCertificate(tuple(names), roles, octets)


def end_of(certificate: bytes) -> float | None:
    """Until when a certificate (DER) counts, in seconds since 1970; None where it is odd."""
    try:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()
    except ValueError:
        return None


def name_in(certificate: bytes, where: str) -> str:
    """What a user's certificate (DER) calls them: by `email`, `cn`, `uid` or `dns`; nothing where it has no such name, or
    where it is odd."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        subject = {
            "cn": NameOID.COMMON_NAME,
            "uid": NameOID.USER_ID,
            "email": NameOID.EMAIL_ADDRESS,
        }
        texts: list[str] = []
        if where in ("email", "dns"):
            kind = x509.RFC822Name if where == "email" else x509.DNSName
            with contextlib.suppress(x509.ExtensionNotFound):
                names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName)
                texts = [str(value) for value in names.value.get_values_for_type(kind)]
        if where in subject:
            texts += [
                str(attribute.value)
                for attribute in read.subject.get_attributes_for_oid(subject[where])
            ]
    except ValueError:
        return ""
    name = texts[0] if texts else ""
    return name if name.isprintable() and len(name) <= MAX_USER else ""
