"""The cluster's own certificate authority: who is a node of this murder, and in which role.

A node's certificate carries its name as a DNS name and each role as the URI `murder:role:ROLE`. Nodes prove
themselves to each other with it (TLS both ways, SASL EXTERNAL). Keys are EC P-256, written durably, mode 0600.
What was signed is noted in `issued.jsonl` beside the authority. Knows no configuration and no sockets.
"""

import contextlib
import ipaddress
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from murder.durable import replace_file
from murder.errors import unreadable

ROLE_URI: Final = "murder:role:"
NODE_ROLES: Final = ("frontend", "backend", "mupdate", "operator")
CA_CERTIFICATE: Final = "ca.pem"
CA_KEY: Final = "ca.key"
CA_DAYS: Final = 3650
ISSUED: Final = "issued.jsonl"
NODE_DAYS: Final = 730
OPERATOR_DAYS: Final = 90  # a person's key lies on a laptop
EXPIRES_SOON_DAYS: Final = 30
BACKDATED: Final = timedelta(hours=1)  # clocks of nodes differ
MAX_COMMON_NAME: Final = 64  # RFC 5280 appendix A, ub-common-name


class AuthorityError(Exception):
    """A certificate or key could not be made or read; the text is for an operator."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The files of a new certificate."""

    certificate: Path
    key: Path
    expires: datetime


def init_authority(folder: Path, *, days: int = CA_DAYS) -> Issued:
    """Make `ca.pem` and `ca.key` in the folder. Refuses to replace an authority that is there."""
    certificate_path, key_path = folder / CA_CERTIFICATE, folder / CA_KEY
    for path in (certificate_path, key_path):
        if path.exists():
            raise AuthorityError(f"{path} exists; an authority is never replaced, move it away")
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Murder cluster authority {secrets.token_hex(4)}")
    now = datetime.now(UTC)
    certificate = (
        _builder(name, name, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_durably(key_path, _key_octets(key), 0o600)
    write_durably(certificate_path, _certificate_octets(certificate), 0o644)
    return Issued(certificate_path, key_path, certificate.not_valid_after_utc)


def issue(
    folder: Path,
    name: str,
    roles: Iterable[str],
    *,
    addresses: Sequence[str] = (),
    days: int | None = None,
    out: Path | None = None,
) -> Issued:
    """Sign a certificate for node `name`; `NAME.pem` and `NAME.key` go to `out` (default: the folder).

    `addresses` are further host names and IP addresses it is reached by. `days` is 90 for who is an operator, else 730.
    An earlier certificate of the name is replaced: this is also how one is renewed. Raises AuthorityError.
    """
    wanted = tuple(dict.fromkeys(roles))
    if days is None:
        days = OPERATOR_DAYS if "operator" in wanted else NODE_DAYS
    for role in wanted:
        if role not in NODE_ROLES:
            raise AuthorityError(f"{role!r} is no role; roles are {', '.join(NODE_ROLES)}")
    if not name or "/" in name or name.startswith("."):
        raise AuthorityError(f"{name!r} is no name for a node; use its full host name")
    authority = read_certificate(folder / CA_CERTIFICATE)
    authority_key = signing_key(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _node_certificate(
        authority, authority_key, key.public_key(), [name, *addresses], wanted, days
    )
    target = folder if out is None else out
    issued = Issued(target / f"{name}.pem", target / f"{name}.key", certificate.not_valid_after_utc)
    write_durably(issued.key, _key_octets(key), 0o600)
    write_durably(issued.certificate, _certificate_octets(certificate), 0o644)
    _note_issued(folder, certificate)
    return issued


def signing_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Of the authority in this folder. Raises AuthorityError."""
    key = read_key(folder / CA_KEY)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(
            f"{folder / CA_KEY} is not a key of an authority of murder (EC expected)"
        )
    return key


def _usage(*, of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _node_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    roles: Sequence[str],
    days: int,
) -> x509.Certificate:
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    known: list[x509.GeneralName] = [_general_name(name) for name in dict.fromkeys(names)]
    known += [x509.UniformResourceIdentifier(ROLE_URI + role) for role in roles]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    subject = _name(names[0][:MAX_COMMON_NAME])
    now = datetime.now(UTC)
    return (
        _builder(subject, authority.subject, public_key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(text: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    try:
        return x509.DNSName(text.encode("idna").decode("ascii") if not text.isascii() else text)
    except (ValueError, UnicodeError) as error:
        raise AuthorityError(f"{text!r} is neither a host name nor an address: {error}") from None


def _key_octets(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_octets(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def serial_text(serial: int) -> str:
    """As `openssl x509 -serial` prints it."""
    text = f"{serial:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


def parse_serial(text: str) -> int:
    """A serial number in hexadecimal, with or without colons. Raises ValueError."""
    return int(text.replace(":", "").strip(), 16)


def _note_issued(folder: Path, certificate: x509.Certificate) -> None:
    """One line more. Raises AuthorityError."""
    row = {
        "serial": serial_text(certificate.serial_number),
        "name": names_of(certificate)[0],
        "roles": sorted(roles_of(certificate)),
        "until": certificate.not_valid_after_utc.isoformat(),
    }
    path = folder / ISSUED
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(row).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be written: {error.strerror}") from None


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises AuthorityError with what to do."""
    return read_certificates(path)[0]


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one. Raises AuthorityError with what to do."""
    try:
        certificates = x509.load_pem_x509_certificates(
            octets_of(path, "; make it with `murder ca`")
        )
    except ValueError:
        certificates = []
    if not certificates:
        raise AuthorityError(f"{path}: holds no PEM certificate")
    return certificates


def read_key(path: Path) -> PrivateKeyTypes:
    """The private key of a PEM file. Raises AuthorityError with what to do."""
    try:
        return serialization.load_pem_private_key(octets_of(path), password=None)
    except (ValueError, TypeError):
        raise AuthorityError(f"{path}: holds no PEM key without a passphrase") from None


def octets_of(path: Path, cure: str = "") -> bytes:
    """Of a file; `cure` ends the sentence where there is none. Raises AuthorityError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AuthorityError(f"{path}: no such file{cure}") from None
    except OSError as error:
        raise AuthorityError(f"{path}: {unreadable(path, error)}") from None


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its DNS names and addresses."""
    alternative = _subject_names(certificate)
    if alternative is None:
        return ()
    addresses = (str(address) for address in alternative.get_values_for_type(x509.IPAddress))
    return (*alternative.get_values_for_type(x509.DNSName), *addresses)


def roles_of(certificate: x509.Certificate) -> frozenset[str]:
    """The roles of a murder that it was issued for."""
    alternative = _subject_names(certificate)
    uris = (
        alternative.get_values_for_type(x509.UniformResourceIdentifier)
        if alternative is not None
        else []
    )
    return frozenset(uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI))


def _subject_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


class Flaw(str):
    """What is wrong, a sentence for an operator; `file` says with which: `certificate`, `key` or `ca`."""

    __slots__ = ("file",)

    file: str

    def __new__(cls, file: str, text: str) -> Self:
        made = super().__new__(cls, text)
        made.file = file
        return made


def flaws_of(
    certificate_path: Path, key_path: Path, authority_path: Path | None, now: datetime
) -> list[Flaw]:
    """What is wrong with a certificate and its key; empty: all is well. One of the authorities has signed it."""
    flaws: list[Flaw] = []
    certificate = key = None
    authorities: list[x509.Certificate] = []
    try:
        certificate = read_certificate(certificate_path)
    except AuthorityError as error:
        flaws.append(Flaw("certificate", str(error)))
    try:
        key = read_key(key_path)
    except AuthorityError as error:
        flaws.append(Flaw("key", str(error)))
    try:
        authorities = read_certificates(authority_path) if authority_path else []
    except AuthorityError as error:
        flaws.append(Flaw("ca", str(error)))
    if certificate is None or key is None or flaws:
        return flaws
    flaws += [Flaw("certificate", text) for text in date_flaws(certificate_path, certificate, now)]
    if authority_path is not None:
        dated = [date_flaws(authority_path, authority, now) for authority in authorities]
        if all(dated):
            flaws += [Flaw("ca", text) for text in dated[0]]
        if not any(has_signed(authority, certificate) for authority in authorities):
            text = f"{certificate_path}: is not signed by {authority_path}"
            flaws.append(Flaw("certificate", text))
    if key.public_key() != certificate.public_key():
        flaws.append(Flaw("key", f"{key_path}: is not the key of {certificate_path}"))
    if key_path.stat().st_mode & 0o007:
        flaws.append(Flaw("key", f"{key_path}: can be read by everybody; chmod 600 it"))
    return flaws


def has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether this authority's key has made that certificate; its dates are not looked at."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def date_flaws(path: Path, certificate: x509.Certificate, now: datetime) -> list[str]:
    """Whether the certificate of that file does not count yet, or no longer."""
    if certificate.not_valid_after_utc < now:
        ended = certificate.not_valid_after_utc.date()
        return [f"{path}: expired on {ended}; renew it with `murder init`, or `murder ca issue`"]
    if certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc.date()
        return [f"{path}: is valid from {begins} only; look at this host's clock"]
    return []


def write_durably(path: Path, octets: bytes, mode: int) -> None:
    """As `replace_file`. Raises AuthorityError."""
    try:
        replace_file(path, octets, mode)
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be written: {error.strerror}") from None
