"""What was taken back fails in the handshake; also in one that began by a context of before."""

import gc
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from murder.config import TlsConfig
from murder.net.tls import (
    NodeContext,
    PeerCertificate,
    client_context,
    distrusted,
    listening_context,
    peer_of,
    server_context,
)
from murder.pki.authority import init_authority, issue
from murder.pki.trust import CRL, Trust, read_trust, revoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    issue(tmp_path, "lost.test", ["frontend"])
    return tmp_path


def shake(
    server: NodeContext, client: NodeContext, name: str
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake by hand: the client's end, the server's. Raises ssl.SSLCertVerificationError."""
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
    with pytest.raises(ssl.SSLWantReadError):
        ends[0].read()  # what comes behind a handshake
    return ends[0], ends[1]


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
    gc.collect()  # connections of earlier tests are nobody's
    before = read_trust(folder / "ca.pem", None, [])
    pair = contexts(folder, before, "lost.test", "be1.test")
    revoke(folder, "lost.test", datetime.now(UTC))
    assert list(distrusted(read_trust(folder / "ca.pem", folder / CRL, []))) == []
    with pytest.raises(ssl.SSLCertVerificationError, match=r"lost\.test is revoked"):
        shake(*pair, "be1.test")


class End:
    """Of a connection."""

    certificate: PeerCertificate | None = None

    def abort(self) -> None:
        pass


def test_who_shows_the_same_certificate_shares_what_was_read_of_it(folder: Path) -> None:
    """A frontend has thousands of connections to each backend."""
    before = read_trust(folder / "ca.pem", None, [])
    server, client = contexts(folder, before, "lost.test", "be1.test")
    ends = [End() for _ in range(4)]
    for number in (0, 2):
        for end, tls in zip(
            ends[number : number + 2], shake(server, client, "be1.test"), strict=True
        ):
            assert tls.getpeercert() is None  # the loop keeps what it gets
            end.certificate = peer_of(tls, end)
    at_client, at_server = ends[0].certificate, ends[1].certificate
    assert at_client is not None and at_client.name == "be1.test"
    assert at_server is not None and at_server.name == "lost.test"
    assert ends[2].certificate is at_client and ends[3].certificate is at_server
    revoke(folder, "lost.test", datetime.now(UTC))
    fresh = read_trust(folder / "ca.pem", folder / CRL, [])
    assert {one for one, _ in distrusted(fresh)} == {ends[1], ends[3]}


def test_what_was_not_verified_says_nothing_of_a_node(folder: Path) -> None:
    server, _ = contexts(folder, Trust(), "lost.test", "be1.test")
    tls, _ = shake(server, client_context(None, None, None, verify=False), "be1.test")
    assert peer_of(tls, End()) is None


def test_mail_clients_may_resume_a_session_and_nodes_get_no_tickets(folder: Path) -> None:
    """OpenSSL's client keeps 16 KiB of each connection on which it has read one."""
    tls = TlsConfig(folder / "ca.pem", folder / "be1.test.pem", folder / "be1.test.key")
    client = client_context(folder / "ca.pem", None, None)
    told = {}
    for public in (False, True):
        context = listening_context(tls, public=public)
        assert context is not None
        session = shake(context, client, "be1.test")[0].session
        assert session is not None
        told[public] = session.has_ticket
    assert told == {False: False, True: True}


def test_a_unified_node_shows_its_own_certificate_to_who_calls_it_by_its_name(
    tmp_path: Path,
) -> None:
    nodes, public = tmp_path / "nodes", tmp_path / "public"
    for folder, name in ((nodes, "n1.test"), (public, "mail.test")):
        folder.mkdir()
        init_authority(folder)
        issue(folder, name, ["frontend", "backend"])
    issue(nodes, "n2.test", ["frontend", "backend"])
    tls = TlsConfig(
        ca=nodes / "ca.pem",
        certificate=nodes / "n1.test.pem",
        key=nodes / "n1.test.key",
        public_certificate=public / "mail.test.pem",
        public_key=public / "mail.test.key",
    )
    context = listening_context(tls, public=True, node="N1.test")
    assert context is not None
    caller = client_context(nodes / "ca.pem", nodes / "n2.test.pem", nodes / "n2.test.key")
    _, ours = shake(context, caller, "n1.test")
    peer = peer_of(ours, End())
    assert peer is not None
    assert peer.name == "n2.test"
    mailer = client_context(public / "ca.pem", None, None)
    shake(context, mailer, "mail.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, caller, "mail.test")
