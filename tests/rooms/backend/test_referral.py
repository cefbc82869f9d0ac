"""Mailboxes that live on another backend: clients of this one are told where (RFC 2193)."""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path

from murder.model.entry import Location
from murder.roles.mupdate.remote.client import MasterClient
from tests.kit.dialogue import Player, Streams
from tests.kit.peer import Peer
from tests.rooms.backend.delivery.test_lmtp_and_pop3 import ports
from tests.rooms.backend.server import config_in, memory_store, running_backend
from tests.rooms.frontend.cluster import PROXY, running_cluster
from tests.rooms.mupdate.nodes import Server

ACL = b"ana\tlrswipkxtecda\t"
ELSEWHERE = {
    b"user.ana.moved": ACL,
    b"shared.secret": b"bob\tlr\t",
}
TRANSCRIPT = r"""
C1= LOGIN ana secret
C1: a1 SELECT INBOX/moved
S1: a1 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] The mailbox is on the server be2.test
C1: a2 STATUS INBOX/moved (MESSAGES)
S1: a2 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: a3 APPEND INBOX/moved {5+}
C1: hello
S1: a3 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: a4 DELETE INBOX/moved
S1: a4 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: a5 RENAME INBOX/moved INBOX/other
S1: a5 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved imap://ana;AUTH=*@be2.test/INBOX/other] $_
C1: a6 MYRIGHTS INBOX/moved
S1: a6 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: a7 APPEND INBOX {5+}
C1: hello
S1: a7 OK [APPENDUID $_ 1] Completed
C1= SELECT INBOX
C1: a8 COPY 1 INBOX/moved
S1: a8 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: a9 MOVE 1 INBOX/moved
S1: a9 NO [REFERRAL imap://ana;AUTH=*@be2.test/INBOX/moved] $_
C1: b1 APPEND INBOX CATENATE (URL "/INBOX/moved/;uid=1")
S1: b1 NO [BADURL /INBOX/moved/;uid=1] $_
# what they may not know of, and what nobody has
C1= UNSELECT
C1: b2 SELECT shared/secret
S1: b2 NO [NONEXISTENT] $_
C1: b3 SELECT INBOX/nowhere
S1: b3 NO [NONEXISTENT] $_
C1: b4 APPEND INBOX/nowhere {5+}
C1: hello
S1: b4 NO [TRYCREATE] $_
# local ones as ever, by the commands of clients that know referrals
C1: c1 RLIST "" *
S1: * LIST (\HasNoChildren) "/" INBOX
S1: c1 OK Completed
C1= SUBSCRIBE INBOX/moved
C1: c2 RLSUB "" *
S1: * LSUB () "/" INBOX/moved
S1: c2 OK Completed
# of what is nowhere, and what they may not know of, they say as others do; others say so of what is elsewhere, too
C1= SUBSCRIBE INBOX/gone
C1= SUBSCRIBE shared/secret
C1: c3 RLSUB "" *
S1: * LSUB (\Noselect) "/" shared/secret
S1: * LSUB (\Noselect) "/" INBOX/gone
S1: * LSUB () "/" INBOX/moved
S1: c3 OK Completed
C1: c4 LSUB "" *
S1: * LSUB (\Noselect) "/" shared/secret
S1: * LSUB (\Noselect) "/" INBOX/gone
S1: * LSUB (\Noselect) "/" INBOX/moved
S1: c4 OK Completed
"""
AWAY = r"""
C1= LOGIN ana secret
C1: a1 SELECT INBOX/moved
S1: a1 NO [NONEXISTENT] $_
C1: a2 RLSUB "" *
S1: * LSUB () "/" shared/secret
S1: * LSUB () "/" INBOX/gone
S1: * LSUB () "/" INBOX/moved
S1: a2 OK Completed
"""


async def test_a_mailbox_that_is_elsewhere_is_referred_to(tmp_path: Path) -> None:
    master = Server(tmp_path / "master")
    await master.start()
    other = MasterClient(master.target)
    for name, acl in ELSEWHERE.items():
        await other.activate(name, bytes(Location("be2.test", "default")), acl)
    await other.close()
    config = config_in(tmp_path, master=f"127.0.0.1:{master.port}")
    config = replace(config, mupdate=replace(config.mupdate, master_user="murder"))
    async with running_backend(tmp_path, config=config) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(TRANSCRIPT)
        await master.stop()
        await Player(connect).play(AWAY)


async def test_who_is_at_home_elsewhere_is_told_at_the_login(tmp_path: Path) -> None:
    """RFC 2221, where the site wants it; through a proxy they are let in."""
    async with running_cluster(tmp_path, homes={"be2.test": ("bob",)}, frontends=0) as cluster:
        backend = await cluster.add_backend("be1.test", ("ana",), memory_store, refers_logins=True)
        peer = await Peer.at(*backend.address)
        assert b" LOGIN-REFERRALS" in await peer.line()
        said = await peer.ask(b"a LOGIN bob secret")
        url = b"imap://bob;AUTH=*@be2.test/"
        assert said == [b"a NO [REFERRAL " + url + b"] Your mailboxes are on the server be2.test"]
        said = await peer.ask(b"b LOGIN bob wrong")
        assert said[-1].startswith(b"b NO [AUTHENTICATIONFAILED]")
        await peer.ok(b"LOGIN ana secret")
        await peer.close()
        peer = await Peer.at(*backend.address)
        await peer.line()
        plain = base64.b64encode(f"bob\0{PROXY}\0secret".encode())
        assert (await peer.ask(b"c AUTHENTICATE PLAIN " + plain))[-1].startswith(b"c OK")
        await peer.close()


async def told(where: tuple[str, int], *lines: bytes, greeting: bytes) -> bytes:
    """The last line of what is answered to these."""
    peer = await Peer.at(*where)
    await peer.until(greeting)
    said = b""
    for line in lines:
        peer.send(line + b"\r\n")
        said = await peer.line()
    await peer.close()
    return said


async def at_lmtp(port: int, user: bytes) -> bytes:
    """What is said of this recipient."""
    peer = await Peer.at(port)
    await peer.reply()
    await peer.replied(b"LHLO mta.test\r\n")
    await peer.replied(b"MAIL FROM:<s@x>\r\n")
    said = await peer.replied(b"RCPT TO:<%b>\r\n" % user)
    await peer.close()
    return said


async def test_who_is_at_home_elsewhere_is_told_where_by_the_other_protocols_too(
    tmp_path: Path,
) -> None:
    """RFC 5804 §1.3 has a referral, POP3 a sentence; mail waits, and does not go back. Who is nowhere is nowhere."""
    async with running_cluster(tmp_path, homes={"be2.test": ("bob",)}, frontends=0) as cluster:
        backend = await cluster.add_backend("be1.test", ("ana",), memory_store, refers_logins=True)
        bob, eve = (base64.b64encode(b"\0%b\0secret" % user) for user in (b"bob", b"eve"))
        said = await told(backend.sieve, b'AUTHENTICATE "PLAIN" "%b"' % bob, greeting=b"OK")
        assert said.startswith(b'NO (REFERRAL "sieve://be2.test") "Your mailboxes are on the ')
        said = await told(backend.sieve, b'AUTHENTICATE "PLAIN" "%b"' % eve, greeting=b"OK")
        assert b"REFERRAL" not in said
        behind_proxy = base64.b64encode(f"bob\0{PROXY}\0secret".encode())
        line = b'AUTHENTICATE "PLAIN" "%b"' % behind_proxy
        assert b"REFERRAL" not in await told(backend.sieve, line, greeting=b"OK")
        async with ports(backend) as (lmtp, pop3):
            where = "127.0.0.1", pop3
            said = await told(where, b"USER bob", b"PASS secret", greeting=b"+OK")
            assert said == b"-ERR [SYS/PERM] Your mailboxes are on the server be2.test"
            said = await told(where, b"USER eve", b"PASS secret", greeting=b"+OK")
            assert said.startswith(b"-ERR [SYS/PERM] No such mailbox")
            assert (await at_lmtp(lmtp, b"ana")).startswith(b"250 ")
            assert (await at_lmtp(lmtp, b"eve")).startswith(b"550 5.1.1 ")
            # no name of any list
            assert (await at_lmtp(lmtp, b"x" * 600)).startswith(b"550 5.1.1 ")
            said = await at_lmtp(lmtp, b"bob")
            assert said.startswith(b"451 ") and b"be2.test" in said
            other = MasterClient(cluster.master.target)
            there = bytes(Location("be2.test", "default"))
            await other.activate(b"shared.news", there, b"anyone\tp\t")
            await other.reserve(b"user.dan", there)
            await other.close()
            said = await at_lmtp(lmtp, b"+shared/news")
            assert said.startswith(b"451 ") and b"be2.test" in said
            assert (await at_lmtp(lmtp, b"dan")).startswith(b"451 4.2.1 ")  # on their way
            await cluster.master.stop()
            assert (await at_lmtp(lmtp, b"eve")).startswith(b"451 ")


async def test_who_has_no_maildrop_here_hears_that_for_good_only_where_it_is_known(
    tmp_path: Path,
) -> None:
    """RFC 3206: behind SYS/PERM a client asks its user, and does not come again by itself. Who comes by a proxy comes by the
    list that it has."""
    homes = {"be2.test": ("bob", "dan")}
    async with running_cluster(tmp_path, homes=homes, frontends=0) as cluster:
        backend = await cluster.add_backend("be1.test", ("ana",), memory_store)
        async with ports(backend) as (_, pop3):
            where = "127.0.0.1", pop3

            async def enters(user: str) -> bytes:
                return await told(where, f"USER {user}".encode(), b"PASS secret", greeting=b"+OK")

            async def is_brought(user: str) -> bytes:
                plain = base64.b64encode(f"{user}\0{PROXY}\0secret".encode())
                return await told(where, b"AUTH PLAIN " + plain, greeting=b"+OK")

            assert (await enters("eve")).startswith(b"-ERR [SYS/PERM] No such mailbox")
            assert (await is_brought("eve")).startswith(b"-ERR [SYS/PERM] No such mailbox")
            assert (await enters("bob")).startswith(b"-ERR [SYS/PERM] Your mailboxes are on")
            moved = b"-ERR [SYS/TEMP] Your mailboxes are on the server be2.test: try again"
            assert (await is_brought("bob")).startswith(moved)
            other = MasterClient(cluster.master.target)
            await other.deactivate(b"user.dan", bytes(Location("be2.test", "default")))
            await other.close()
            unknown = b"-ERR [SYS/TEMP] It cannot be known now where your mailboxes are"
            assert (await enters("dan")).startswith(unknown)  # they are being moved
            await cluster.master.stop()
            for user in ("bob", "eve"):
                assert (await enters(user)).startswith(unknown)
                assert (await is_brought(user)).startswith(unknown)
            assert (await enters("ana")).startswith(b"+OK")
