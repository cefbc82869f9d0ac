"""Whose certificates are believed, and which were taken back: revocation lists (RFC 5280 §5) and denied serial numbers.

Knows no configuration and no sockets.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from murder.pki.authority import (
    BACKDATED,
    CA_CERTIFICATE,
    ISSUED,
    AuthorityError,
    has_signed,
    names_of,
    octets_of,
    parse_serial,
    read_certificate,
    read_certificates,
    roles_of,
    signing_key,
    write_durably,
)

CRL: Final = "crl.pem"
LEAST_SERIAL: Final = 1 << 64  # ours have 159 random bits


@dataclass(frozen=True, slots=True)
class Noted:
    """A certificate that an authority has signed."""

    serial: int
    name: str
    roles: tuple[str, ...]
    until: datetime
    is_revoked: bool


def list_issued(folder: Path) -> list[Noted]:
    """What the authority in the folder has signed, oldest first. Raises AuthorityError.

    From its notes, and from certificates that lie in the folder and were signed before there were notes.
    """
    authority = read_certificate(folder / CA_CERTIFICATE)
    taken_back = read_crl(folder / CRL, [authority]) if (folder / CRL).exists() else {}
    noted: dict[int, Noted] = {}
    for certificate in _certificates_in(folder, authority):
        noted[certificate.serial_number] = Noted(
            certificate.serial_number,
            (names_of(certificate) or ("",))[0],
            tuple(sorted(roles_of(certificate))),
            certificate.not_valid_after_utc,
            certificate.serial_number in taken_back,
        )
    path = folder / ISSUED
    lines = octets_of(path).splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            serial, until = parse_serial(row["serial"]), datetime.fromisoformat(row["until"])
            roles = tuple(str(role) for role in row["roles"])
            noted.pop(serial, None)
            noted[serial] = Noted(serial, str(row["name"]), roles, until, serial in taken_back)
        except (ValueError, KeyError, TypeError):
            text = f"{path}: line {number} is damaged; take it out, it is only a note"
            raise AuthorityError(text) from None
    return list(noted.values())


def _certificates_in(folder: Path, authority: x509.Certificate) -> Iterator[x509.Certificate]:
    for path in sorted(folder.glob("*.pem")):
        with contextlib.suppress(AuthorityError):
            certificate = read_certificate(path)
            if certificate != authority and has_signed(authority, certificate):
                yield certificate


def revoke(folder: Path, whom: str, now: datetime) -> tuple[Path, list[Noted]]:
    """Take back all certificates of a name that are in date, or the one with a serial number; the list's file and those
    that were taken back now. Raises AuthorityError."""
    authority = read_certificate(folder / CA_CERTIFICATE)
    key = signing_key(folder)
    issued = list_issued(folder)
    named = [certificate for certificate in issued if certificate.name.lower() == whom.lower()]
    if not named:
        serial = _serial_of(whom, issued)
        named = [certificate for certificate in issued if certificate.serial == serial]
        named = named or [Noted(serial, "", (), authority.not_valid_after_utc, False)]
    wanted = [
        certificate
        for certificate in named
        if not certificate.is_revoked and certificate.until > now
    ]
    path = folder / CRL
    dates = dict(read_crl(path, [authority])) if path.exists() else {}
    for certificate in wanted:
        dates.setdefault(certificate.serial, now)
    _write_list(path, authority, key, dates, now)
    return path, wanted


def init_list(folder: Path, now: datetime) -> Path:
    """Make the authority's list, with nothing taken back, so that every node can name it from the first day. Raises
    AuthorityError."""
    path = folder / CRL
    _write_list(path, read_certificate(folder / CA_CERTIFICATE), signing_key(folder), {}, now)
    return path


def _write_list(
    path: Path,
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    dates: Mapping[int, datetime],
    now: datetime,
) -> None:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - BACKDATED)
        .next_update(authority.not_valid_after_utc)
    )
    for serial, date in dates.items():
        row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date)
        builder = builder.add_revoked_certificate(row.build())
    octets = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    write_durably(path, octets, 0o644)


def _serial_of(whom: str, issued: Sequence[Noted]) -> int:
    """One that was noted, or one long enough to be no misspelt name. Raises AuthorityError."""
    with contextlib.suppress(ValueError):
        serial = parse_serial(whom)
        if serial >= LEAST_SERIAL or any(certificate.serial == serial for certificate in issued):
            return serial
    text = (
        f"{whom!r} is neither a name that was issued nor a serial number; `murder ca list` has all"
    )
    raise AuthorityError(text)


def read_crl(path: Path, authorities: Sequence[x509.Certificate]) -> Mapping[int, datetime]:
    """Serial numbers and since when, of a revocation list of one of the authorities. Raises AuthorityError."""
    dates: dict[int, datetime] = {}
    for crl in _read_crls(path):
        if not any(_has_signed_list(authority, crl) for authority in authorities):
            raise AuthorityError(f"{path}: is not signed by an authority of tls.ca")
        dates.update((revoked.serial_number, revoked.revocation_date_utc) for revoked in crl)
    return dates


def _read_crls(path: Path) -> list[x509.CertificateRevocationList]:
    """Several may stand in one file, of several authorities."""
    begin = b"-----BEGIN X509 CRL-----"
    pieces = octets_of(path).split(begin)[1:]
    try:
        crls = [x509.load_pem_x509_crl(begin + piece) for piece in pieces]
    except ValueError:
        crls = []
    if not crls:
        raise AuthorityError(f"{path}: holds no PEM revocation list; `murder ca revoke` makes one")
    return crls


def _has_signed_list(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    key = authority.public_key()
    try:
        return crl.issuer == authority.subject and crl.is_signature_valid(key)  # type: ignore[arg-type] # any kind
    except (TypeError, ValueError):
        return False


# --- whom to believe


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates count: the authorities (none: the system's), and what was taken back.

    A list that is out of date (its nextUpdate has passed) goes on counting: what it takes back stays so.
    """

    authorities: tuple[x509.Certificate, ...] = ()
    revoked: Mapping[int, frozenset[bytes]] = field(default_factory=dict)
    """By serial number the issuers' names (DER) of which it is meant; `b""`: any."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """By serial number and issuer; lists that name no issuer count for all."""
        issuers = self.revoked.get(certificate.serial_number, frozenset())
        return b"" in issuers or certificate.issuer.public_bytes() in issuers

    def objection(self, certificate: bytes, now: datetime, before: "Trust") -> str:
        """Why a certificate (DER) that was believed `before` is so no longer; empty: it is."""
        parsed = x509.load_der_x509_certificate(certificate)
        if self.is_revoked(parsed):
            return "revoked"
        if parsed.not_valid_after_utc < now:
            return "expired"
        gone = set(before.authorities) - set(self.authorities)
        if gone and not any(has_signed(authority, parsed) for authority in self.authorities):
            return "not of our authority"
        return ""


def read_trust(authorities: Path | None, crl: Path | None, revoked: Iterable[str]) -> Trust:
    """From the files, and serial numbers in hexadecimal. Raises AuthorityError."""
    known = tuple(read_certificates(authorities)) if authorities is not None else ()
    taken_back: dict[int, set[bytes]] = {}
    for text in revoked:
        try:
            taken_back.setdefault(parse_serial(text), set()).add(b"")
        except ValueError:
            text = f"{text!r} is no serial number in hexadecimal; `murder ca list` shows them"
            raise AuthorityError(text) from None
    if crl is not None:
        for revocations in _read_crls(crl):
            if not any(_has_signed_list(authority, revocations) for authority in known):
                raise AuthorityError(f"{crl}: is not signed by an authority of {authorities}")
            issuer = revocations.issuer.public_bytes()
            for row in revocations:
                taken_back.setdefault(row.serial_number, set()).add(issuer)
    return Trust(known, {serial: frozenset(issuers) for serial, issuers in taken_back.items()})
