"""What was taken back fails in the handshake; also in one that began by a context of before."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from murder.net.tls import NodeContext, client_context, distrusted, server_context
from murder.pki.authority import init_authority, issue
from murder.pki.trust import CRL, Trust, read_trust, revoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    issue(tmp_path, "lost.test", ["frontend"])
    return tmp_path


def shake(server: NodeContext, client: NodeContext, name: str) -> None:
    """A handshake by hand. Raises ssl.SSLCertVerificationError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = ends
    for _ in range(4):
        still = []
        for end in waiting:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                still.append(end)
        waiting = still
    assert not waiting


def contexts(
    folder: Path, trust: Trust, caller: str, called: str
) -> tuple[NodeContext, NodeContext]:
    ca = folder / "ca.pem"
    return (
        server_context(folder / f"{called}.pem", folder / f"{called}.key", ca, trust=trust),
        client_context(ca, folder / f"{caller}.pem", folder / f"{caller}.key", trust=trust),
    )


def test_a_revoked_caller_and_a_revoked_server_are_refused(folder: Path) -> None:
    before = read_trust(folder / "ca.pem", None, [])
    for caller, called in (("lost.test", "be1.test"), ("be1.test", "lost.test")):
        shake(*contexts(folder, before, caller, called), called)
    revoke(folder, "lost.test", datetime.now(UTC))
    fresh = read_trust(folder / "ca.pem", folder / CRL, [])
    for caller, called in (("lost.test", "be1.test"), ("be1.test", "lost.test")):
        with pytest.raises(ssl.SSLCertVerificationError, match="is revoked"):
            shake(*contexts(folder, fresh, caller, called), called)
    shake(*contexts(folder, fresh, "be1.test", "be1.test"), "be1.test")


def test_a_handshake_by_a_context_of_before_a_reload_is_judged_by_what_counts_now(
    folder: Path,
) -> None:
    """STARTTLS of a session that was there before the reload."""
    before = read_trust(folder / "ca.pem", None, [])
    pair = contexts(folder, before, "lost.test", "be1.test")
    revoke(folder, "lost.test", datetime.now(UTC))
    assert list(distrusted(read_trust(folder / "ca.pem", folder / CRL, []))) == []
    with pytest.raises(ssl.SSLCertVerificationError, match=r"lost\.test is revoked"):
        shake(*pair, "be1.test")
