"""The cluster's certificates: whom they name, and what is found wrong with them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from murder.pki.authority import (
    AuthorityError,
    flaws_of,
    init_authority,
    issue,
    names_of,
    read_certificate,
    roles_of,
    write_durably,
)

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ca")
    init_authority(made)
    return made


def test_a_certificate_names_its_node_and_its_roles(folder: Path) -> None:
    made = issue(folder, "be1.example.org", ["backend", "frontend"], addresses=["127.0.0.1", "b"])
    certificate = read_certificate(made.certificate)
    assert names_of(certificate) == ("be1.example.org", "b", "127.0.0.1")
    assert roles_of(certificate) == {"backend", "frontend"}
    assert flaws_of(made.certificate, made.key, folder / "ca.pem", NOW) == []


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    made = issue(folder, "fe1.example.org", ["frontend"])
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600


def test_an_authority_is_never_replaced(folder: Path) -> None:
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(AuthorityError, match="never replaced"):
        init_authority(folder)
    assert (folder / "ca.key").read_bytes() == before


def test_openssl_takes_them_in_both_directions(folder: Path) -> None:
    server = issue(folder, "be2.example.org", ["backend"])
    client = issue(folder, "fe2.example.org", ["frontend"])
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)
    accepting.load_verify_locations(folder / "ca.pem")
    accepting.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    calling.load_cert_chain(client.certificate, client.key)
    ends = [ssl.MemoryBIO() for _ in range(2)]
    caller = calling.wrap_bio(ends[0], ends[1], server_hostname="be2.example.org")
    answerer = accepting.wrap_bio(ends[1], ends[0], server_side=True)
    open_ends = {caller, answerer}
    while open_ends:
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.discard(end)
            except ssl.SSLWantReadError:
                pass
    shown = answerer.getpeercert()
    assert shown is not None
    assert ("URI", "murder:role:frontend") in shown["subjectAltName"]


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [("", "backend", "no name"), ("../x", "backend", "no name"), ("x", "king", "no role")],
)
def test_what_cannot_be_a_node_is_refused(folder: Path, name: str, role: str, says: str) -> None:
    with pytest.raises(AuthorityError, match=says):
        issue(folder, name, [role])


def test_each_flaw_is_told_with_its_mending(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    init_authority(other)
    made = issue(folder, "be3.example.org", ["backend"], out=tmp_path)
    late = NOW + timedelta(days=900)
    assert "expired on" in flaws_of(made.certificate, made.key, None, late)[0]
    assert "clock" in flaws_of(made.certificate, made.key, None, NOW - timedelta(days=9))[0]
    assert "is not signed by" in flaws_of(made.certificate, made.key, other / "ca.pem", NOW)[0]
    assert "is not the key of" in flaws_of(made.certificate, other / "ca.key", None, NOW)[0]
    assert "no such file" in flaws_of(tmp_path / "none.pem", made.key, None, NOW)[0]
    assert "holds no PEM certificate" in flaws_of(made.key, made.key, None, NOW)[0]
    assert "holds no PEM key" in flaws_of(made.certificate, made.certificate, None, NOW)[0]
    made.key.chmod(0o644)
    assert "chmod 600" in flaws_of(made.certificate, made.key, None, NOW)[0]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_durably(path, b"old", 0o600)
    write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    with pytest.raises(AuthorityError, match="cannot be written"):
        write_durably(tmp_path / "none" / "x", b"", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
