"""What an authority has taken back counts no longer, and only that."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from murder.pki.authority import (
    AuthorityError,
    flaws_of,
    init_authority,
    issue,
    read_certificate,
    serial_text,
)
from murder.pki.trust import CRL, Trust, list_issued, read_trust, revoke

NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    folder.mkdir()
    init_authority(folder)
    return folder


def der(path: Path) -> bytes:
    return read_certificate(path).public_bytes(Encoding.DER)


def test_operators_live_ninety_days_and_nodes_longer(folder: Path) -> None:
    operator = issue(folder, "anna-admin", ["operator"])
    node = issue(folder, "be1.example.org", ["backend"])
    assert (operator.expires - NOW).days in (89, 90)
    assert (node.expires - NOW).days > 700
    assert (issue(folder, "x", ["operator"], days=7).expires - NOW).days in (6, 7)


def test_all_of_a_name_or_one_serial_number_is_taken_back(folder: Path) -> None:
    first = issue(folder, "be1.example.org", ["backend"]).certificate
    lost = read_certificate(first).serial_number
    issue(folder, "be1.example.org", ["backend"])
    other = read_certificate(issue(folder, "fe1.example.org", ["frontend"]).certificate)
    path, revoked = revoke(folder, "BE1.example.org", NOW)
    assert path == folder / CRL
    assert len(revoked) == 2
    assert lost in {one.serial for one in revoked}
    assert revoke(folder, "be1.example.org", NOW)[1] == []
    assert not {one.serial: one for one in list_issued(folder)}[other.serial_number].is_revoked
    after = issue(folder, "be1.example.org", ["backend"]).certificate
    trust = read_trust(folder / "ca.pem", folder / CRL, [])
    assert not trust.is_revoked(read_certificate(after))
    text = serial_text(read_certificate(after).serial_number)
    revoke(folder, ":".join(text[at : at + 2] for at in range(0, len(text), 2)), NOW)
    trust = read_trust(folder / "ca.pem", folder / CRL, [])
    assert trust.is_revoked(read_certificate(after))
    assert trust.is_revoked(read_certificate(folder / "be1.example.org.pem"))
    assert [one.is_revoked for one in list_issued(folder)] == [True, True, False, True]


def test_who_is_no_name_and_no_number_is_refused(folder: Path) -> None:
    with pytest.raises(AuthorityError, match="neither a name that was issued nor a serial number"):
        revoke(folder, "nobody", NOW)
    with pytest.raises(AuthorityError, match="neither a name that was issued nor a serial number"):
        revoke(folder, "be1", NOW)  # which could be read as a number


def test_certificates_of_before_there_were_notes_are_listed(folder: Path) -> None:
    issue(folder, "old.example.org", ["mupdate"])
    (folder / "issued.jsonl").unlink()
    assert [one.name for one in list_issued(folder)] == ["old.example.org"]
    assert [one.name for one in revoke(folder, "old.example.org", NOW)[1]] == ["old.example.org"]


def test_a_list_of_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    init_authority(other)
    issue(other, "x", ["operator"])
    revoke(other, "x", NOW)
    with pytest.raises(AuthorityError, match="is not signed by an authority of"):
        read_trust(folder / "ca.pem", other / CRL, [])
    with pytest.raises(AuthorityError, match="holds no PEM revocation list"):
        read_trust(folder / "ca.pem", folder / "ca.pem", [])
    with pytest.raises(AuthorityError, match="no serial number in hexadecimal"):
        read_trust(folder / "ca.pem", None, ["anna"])


def test_a_number_of_a_list_is_meant_of_its_authority_only(folder: Path, tmp_path: Path) -> None:
    certificate = read_certificate(issue(folder, "a", ["operator"]).certificate)
    number = certificate.serial_number
    assert not Trust((), {number: frozenset({b"another"})}).is_revoked(certificate)
    assert Trust((), {number: frozenset({b""})}).is_revoked(certificate)


def test_what_was_believed_is_looked_at_again(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    init_authority(second)
    shown = der(issue(folder, "be1.example.org", ["backend"]).certificate)
    first = read_trust(folder / "ca.pem", None, [])
    both = tmp_path / "both.pem"
    both.write_bytes((second / "ca.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    assert read_trust(both, None, []).objection(shown, NOW, first) == ""
    alone = read_trust(second / "ca.pem", None, [])
    assert alone.objection(shown, NOW, first) == "not of our authority"
    assert first.objection(shown, NOW + timedelta(days=900), first) == "expired"
    revoke(folder, "be1.example.org", NOW)
    fresh = read_trust(folder / "ca.pem", folder / CRL, [])
    assert fresh.objection(shown, NOW, first) == "revoked"


def test_a_node_is_of_any_of_several_authorities(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    init_authority(second)
    made = issue(folder, "be1.example.org", ["backend"])
    both = tmp_path / "both.pem"
    both.write_bytes((second / "ca.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    assert flaws_of(made.certificate, made.key, both, NOW) == []
