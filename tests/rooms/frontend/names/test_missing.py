"""A backend that is away: what the list knows is told, the tagged answer says what is missing; its mailboxes get NO."""

import asyncio
import base64
from pathlib import Path

from murder.api.referral import Conduct, ReferralQuestion
from murder.model.name import MailboxName
from tests.kit.dialogue import Player
from tests.rooms.backend.server import memory_store
from tests.rooms.frontend.cluster import Cluster, Policy, running_cluster

BEGIN = r"""
C2= LOGIN bob secret
C2= CREATE INBOX/both
C2= SETACL INBOX/both ana lrswipkxte
C1= LOGIN ana secret
C1= CREATE INBOX/Sent (USE (\Sent))
C1= SUBSCRIBE INBOX
"""


def stop(cluster: Cluster, name: str) -> None:
    """As if the host were gone: nothing is accepted any more, and all connections end."""
    running = cluster.backends[name]
    running.listener.stop_accepting()
    for session in list(running.backend.sessions):
        session.connection.abort()


async def test_a_list_goes_on_without_a_backend(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        player = Player(cluster.connect)
        await player.play(BEGIN, keep=True)
        stop(cluster, "be2.test")
        await player.play(
            r"""
C1: a1 LIST "" * RETURN (STATUS (MESSAGES))
S1: * NO [UNAVAILABLE] $_
S1: * LIST (\HasChildren) "/" INBOX
S1: * STATUS INBOX (MESSAGES 0)
S1: * LIST (\HasNoChildren \Sent) "/" INBOX/Sent
S1: * STATUS INBOX/Sent (MESSAGES 0)
S1: * LIST (\HasNoChildren) "/" user/bob/both
S1: a1 OK Completed, without the answers of these servers: be2.test (connect)
C1: a2 SELECT user/bob/both
S1: a2 NO [UNAVAILABLE] $_
C1: a3 SELECT INBOX
S1~ a3 OK $_
C1: a4 NOTIFY SET (SUBTREE (INBOX user) (MessageNew MessageExpunge))
S1: * NO [UNAVAILABLE] $_
S1: a4 OK Completed, without events from be2.test
C1= NOTIFY NONE
""",
            keep=True,
        )
        stop(cluster, "be1.test")
        await player.play(
            r"""
S1: * OK [CLOSED] $_
C1: b1 LSUB "" *
S1: b1 NO [UNAVAILABLE] $_
C1: b2 LIST "" *
S1: * LIST (\HasChildren) "/" INBOX
S1: * LIST (\HasNoChildren) "/" INBOX/Sent
S1: * LIST (\HasNoChildren) "/" user/bob/both
S1: b2 OK Completed, without the answers of these servers: be1.test ($_)
C1: b3 LIST (SUBSCRIBED) "" *
S1: b3 NO [UNAVAILABLE] $_
"""
        )


UNTRUE = r"""
C1= LOGIN ana secret
C1= APPEND INBOX {...}
C1> one
C1= SELECT INBOX
C1: a1 COPY 1 user/bob/phantom
S1: a1 NO [NONEXISTENT] $_
C1: a2 MOVE 1 user/bob/phantom
S1: a2 NO [NONEXISTENT] $_
C1: a3 REPLACE 1 user/bob/phantom {...}
C1> two
S1: a3 NO [NONEXISTENT] $_
C1: a4 FETCH 1:* UID
S1: * 1 FETCH (UID 1)
S1: a4 OK Completed
C1: a5 LIST "" "user/*" RETURN (STATUS (MESSAGES))
S1: * LIST (\HasNoChildren) "/" user/bob/phantom
S1: a5 OK $_
C1: a6 SELECT user/bob/phantom
S1: * OK [CLOSED] $_
S1: a6 NO [NONEXISTENT] $_
C1: a7 APPEND INBOX/phantom {...}
C1> three
S1: a7 NO [TRYCREATE] $_
C1= CREATE INBOX/phantom
C1: a8 APPEND INBOX/phantom {...}
C1> three
S1: a8 OK [APPENDUID $_ 1] $_
C1= DELETE INBOX/phantom
C1: a9 SELECT INBOX/lost
S1: a9 NO [UNAVAILABLE] $_
C1: b1 SELECT INBOX/hidden
S1: b1 NO [NONEXISTENT] $_
C1: b2 CREATE INBOX/hidden
S1: b2 NO [ALREADYEXISTS] $_
C1: b3 RENAME INBOX/hidden INBOX/seen
S1: b3 NO [NONEXISTENT] $_
C1: b4 LIST "" *
S1: * LIST (\HasChildren) "/" INBOX
S1: * LIST (\HasNoChildren) "/" INBOX/lost
S1: * LIST (\HasNoChildren) "/" user/bob/phantom
S1: b4 OK $_
"""
TOLD_TO_MASTER = (
    ("user.bob.phantom", "be2.test!default", "bob\tlrswipkxtea\tana\tlrswipkxte\t"),
    ("user.ana.phantom", "be1.test!default", "ana\tlrswipkxtea\t"),
    ("user.ana.lost", "be9.test!default", "ana\tlrswipkxtea\t"),
)


async def test_the_list_says_what_is_not_so(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        master = Player(lambda _: asyncio.open_connection("127.0.0.1", cluster.master.port))
        told = "".join(
            f'Cm: a{at} ACTIVATE "{name}" "{place}" "{acl}"\nSm: a{at} OK $_\n'
            for at, (name, place, acl) in enumerate(TOLD_TO_MASTER)
        )
        response = base64.b64encode(b"\0admin\0secret").decode()
        login = f'Cm: a AUTHENTICATE "PLAIN" "{response}"\nSm~ a OK $_\n'
        await master.play(login + told)
        store = cluster.backends["be1.test"].backend.store
        await store.create(MailboxName(b"user.ana.hidden"), "default")
        await cluster.frontends[0].frontend.locator.catch_up()
        await Player(cluster.connect).play(UNTRUE)


async def test_capabilities_are_what_all_backends_offer(tmp_path: Path) -> None:
    homes = {"be1.test": ("ana",)}
    async with running_cluster(tmp_path, homes, frontends=0) as cluster:
        await cluster.add_backend(
            "be2.test",
            ("bob",),
            memory_store,
            suppress_capabilities=("QRESYNC",),
            max_message_bytes=5000,
        )
        await cluster.add_frontend()
        await Player(cluster.connect).play(
            "C1= LOGIN ana secret\nC1: a ENABLE QRESYNC CONDSTORE\nS1: * ENABLED CONDSTORE\nS1: a OK $_"
        )
        known = cluster.frontends[0].frontend.capabilities
        assert {b"CONDSTORE", b"APPENDLIMIT=5000", b"RIGHTS=kxten"} <= set(known.words())
        assert b"QRESYNC" not in known.words() and b"X-XFER" not in known.words()
        # of thousands of digits none makes a number
        known.learn("be3.test", frozenset({*known.words(), b"APPENDLIMIT=" + b"9" * 5000}))
        assert b"APPENDLIMIT=5000" in known.words()
        known.unknown_of(["be1.test"])  # the other is a server no longer
        assert b"QRESYNC" in known.words()


async def test_a_session_hears_of_capabilities_that_have_changed(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        known = cluster.frontends[0].frontend.capabilities
        player = Player(cluster.connect)
        await player.play(
            """
C1= LOGIN ana secret
C1: a1 SELECT INBOX
S1: * FLAGS $_
S1~ a1 OK $_
""",
            keep=True,
        )
        known.learn("be2.test", known.of("be2.test") - {b"QRESYNC"})
        await player.play(
            """
C1: a2 SELECT INBOX
S1: * CAPABILITY IMAP4rev1 ACL $_
S1: * OK [CLOSED] $_
S1~ a2 OK $_
C1: a3 SELECT INBOX
S1: * OK [CLOSED] $_
S1~ a3 OK $_
"""
        )


class Referring(Policy):
    """A site whose clients are to go to their backends themselves."""

    def refers_logins(self) -> bool:
        return True

    def refers_unable(self) -> bool:
        return True

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        if question.command == "LOGIN":
            return Conduct.REFER if question.user == "bob" else Conduct.RELAY
        return super().relay_or_refer(question)


async def test_referrals_are_well_formed(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, frontends=0) as cluster:
        await cluster.add_frontend(Referring())
        port = cluster.backends["be1.test"].address[1]
        await Player(cluster.connect, {"port": str(port)}).play(
            """
C1: a0 CAPABILITY
S1: * CAPABILITY $_ LOGIN-REFERRALS
S1: a0 OK Completed
C1: a1 LOGIN bob secret
S1: a1 NO [REFERRAL imap://bob;AUTH=*@127.0.0.1:$_/] $_
C1= LOGIN ana secret
C1= CREATE "INBOX/a b&APw-"
C1= RLIST "" *
C1: a2 SELECT "INBOX/a b&APw-"
S1: a2 NO [REFERRAL imap://ana;AUTH=*@127.0.0.1:$port/INBOX/a%20b%C3%BC] $_
"""
        )


async def test_what_another_backend_has_is_told_as_the_client_calls_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(
            "Cbe2= LOGIN admin secret\nCbe2= CREATE shared/x\nCbe1= LOGIN admin secret\n"
            "Cbe1: a CREATE shared/x\nSbe1: a NO [ALREADYEXISTS] The murder has this mailbox"
            " already: shared/x is active at be2.test\n"
        )
