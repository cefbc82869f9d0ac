"""NOTIFY and IDLE of mailboxes on several backends, through one client connection (RFC 5465, RFC 2177)."""

from pathlib import Path
from typing import Any, cast

import pytest

from murder.config.sections import NamespaceConfig
from murder.net.bulk import SLICE_OCTETS, write_much
from murder.net.connection import Connection
from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.arbiter import Arbiter
from murder.roles.frontend.imap.dialogue import FrontendImap
from tests.kit.dialogue import Player
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.entering.test_multiplexor import entered

SHARED = """
C1= LOGIN ana secret
C2= LOGIN bob secret
C2= CREATE INBOX/both
C2= SETACL INBOX/both ana lrswipkxte
"""


async def test_mailboxes_of_both_backends_are_told_of_during_one_idle(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(
            SHARED
            + """
C1= CREATE INBOX/here
C1: a1 NOTIFY SET STATUS {selected} (SUBTREE (INBOX user) (MessageNew MessageExpunge MailboxName))
S1: * STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY $_)
S1: * STATUS INBOX/here (MESSAGES 0 UIDNEXT 1 UIDVALIDITY $_)
S1: * STATUS user/bob/both (MESSAGES 0 UIDNEXT 1 UIDVALIDITY $_)
S1: a1 OK Completed
C1= SELECT INBOX
C1: a2 IDLE
S1: + idling
C2= APPEND INBOX/both {...}
C2> on the other backend
S1: * STATUS user/bob/both (MESSAGES 1 UIDNEXT 2 UIDVALIDITY $_)
C3= LOGIN ana secret
C3= APPEND INBOX {...}
C3> in the selected mailbox
S1: * 1 EXISTS
S1: * 1 RECENT
S1: * 1 FETCH (UID 1 BODY[] {$_}
S1: in the selected mailbox
S1: )
C3= APPEND INBOX/here {...}
C3> beside it
S1: * STATUS INBOX/here (MESSAGES 1 UIDNEXT 2 UIDVALIDITY $_)
C2= SETACL INBOX/both ana lr
C2= RENAME INBOX/both INBOX/ours
S1~ * LIST (\\HasNoChildren) "/" user/bob/ours ("OLDNAME" ("user/bob/both"))
C1: DONE
S1: a2 OK Completed
C1: a3 SELECT user/bob/ours
S1~ a3 OK $_
C2= APPEND INBOX/ours {...}
C2> now selected
S1: * 2 EXISTS
S1: * $_ RECENT
S1: * 2 FETCH (UID 2 BODY[] {$_}
S1: now selected
S1: )
C3= APPEND INBOX/here {...}
C3> now not
S1: * STATUS INBOX/here (MESSAGES 2 UIDNEXT 3 UIDVALIDITY $_)
C1= NOTIFY NONE
C3= APPEND INBOX/here {...}
C3> unsaid
C2= APPEND INBOX/ours {...}
C2> unsaid
C1: a4 NOOP
S1: a4 OK Completed
""".replace("{selected}", "(SELECTED (MessageNew (UID BODY.PEEK[]) MessageExpunge))")
        )


async def test_what_is_subscribed_to_on_another_backend_is_watched_there(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(
            SHARED
            + """
C1= SUBSCRIBE user/bob/both
C1= CREATE INBOX/no
C1: a1 NOTIFY SET (SUBSCRIBED (MessageNew MessageExpunge))
S1: a1 OK Completed
C2= APPEND INBOX/both {...}
C2> told
S1: * STATUS user/bob/both (MESSAGES 1 UIDNEXT 2 UIDVALIDITY $_)
"""
        )


async def test_children_of_other_domains_are_told_to_whom_their_lists_name(tmp_path: Path) -> None:
    """As LIST tells them: `anyone` is somebody else there, wherever a child is."""
    homes = {"be1.test": ("bob@x.org", "ana@y.org"), "be2.test": ("eve@y.org",)}
    domains = NamespaceConfig(domains=True)
    async with running_cluster(tmp_path, homes, namespace=domains) as cluster:
        await Player(cluster.connect).play("""
C1= LOGIN bob@x.org secret
C1= SETACL INBOX ana@y.org lr
Cadmin= LOGIN admin secret
Cadmin= CREATE user/bob/c@x.org be2.test
Cadmin= SETACL user/bob/c@x.org anyone lr
C2= LOGIN ana@y.org secret
C2: a1 LIST "" user/bob*@x.org
S2: * LIST (\\HasNoChildren) "/" user/bob@x.org
S2: a1 OK Completed
C2: a2 NOTIFY SET (mailboxes user/bob@x.org (MailboxName))
S2: a2 OK Completed
C1= SETACL INBOX ana@y.org ""
S2: * LIST (\\NonExistent) "/" user/bob@x.org
C1= SETACL INBOX ana@y.org l
S2: * LIST (\\HasNoChildren) "/" user/bob@x.org
""")


async def test_a_lost_backend_is_told_of(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        player = Player(cluster.connect)
        await player.play(
            SHARED
            + """
C1= NOTIFY SET (SUBTREE (INBOX user) (MessageNew MessageExpunge))
C1= SELECT INBOX
""",
            keep=True,
        )
        for session in list(cluster.backends["be2.test"].backend.sessions):
            session.connection.abort()
        await player.play(
            """
S1: * OK [NOTIFICATIONOVERFLOW] be2.test has gone: ask again with NOTIFY
C1: a1 NOOP
S1: a1 OK Completed
C1= NOTIFY SET (SUBTREE (INBOX user) (MessageNew MessageExpunge))
"""
        )


async def test_a_connection_that_was_there_for_a_moment_ends_no_watch(tmp_path: Path) -> None:
    """One beside that of the selected mailbox, for COPY to it or a URL: nothing is watched there."""
    async with running_cluster(tmp_path) as cluster:
        peer = await entered(cluster, "ana")
        await peer.ok(b"CREATE INBOX/b")
        await peer.ok(b"NOTIFY SET (SUBTREE (INBOX user) (MessageNew MessageExpunge))")
        await peer.ok(b"SELECT INBOX")
        (dialogue,) = cluster.frontends[0].frontend.sessions
        assert isinstance(dialogue, FrontendImap) and dialogue.selected is not None
        known = {session.connection for session in cluster.backends["be1.test"].backend.sessions}
        async with dialogue.spare_upstream(dialogue.selected.server) as spare:
            for session in list(cluster.backends["be1.test"].backend.sessions):
                if session.connection not in known:
                    session.connection.abort()
            await until_soon(lambda: spare.is_lost)
        assert await peer.ask(b"a NOOP") == [b"a OK Completed"]
        other = await entered(cluster, "ana")
        await other.ok(b"APPEND INBOX/b {3+}\r\na:b")
        assert await peer.until(b"* STATUS INBOX/b (MESSAGES 1 ")
        assert dialogue.is_watching
        await peer.close()
        await other.close()


class _Written:
    """A client's connection that remembers."""

    writing_paused = False

    def __init__(self, is_tls: bool = False) -> None:
        self.octets = b""
        self.most = 0
        self.is_tls = is_tls

    def write(self, data: bytes) -> None:
        self.most = max(self.most, len(data))
        self.octets += data


class _Speaker:
    is_inside = False

    def say(self, gate: Any, data: bytes, *, ends: bool = True) -> None:
        self.is_inside = not ends
        gate.connection.write(data)


def test_no_response_is_put_into_another() -> None:
    written = _Written()
    arbiter = Arbiter(cast(Connection, written), Client())
    one, two = _Speaker(), _Speaker()
    arbiter.let_through(cast(ImapUpstream, one))
    arbiter.let_through(cast(ImapUpstream, two))
    first, second = cast(Any, one).client, cast(Any, two).client
    one.say(first, b"* 1 FETCH (BODY[] {8}\r\n", ends=False)
    two.say(second, b"* STATUS a {1}\r\n", ends=False)
    arbiter.write(None, b"* OK ours\r\n")
    one.say(first, b"half", ends=False)
    two.say(second, b"x (MESSAGES 1)\r\n")
    one.say(first, b"half)\r\n")
    two.say(second, b"* STATUS b (MESSAGES 2)\r\n")
    assert written.octets == (
        b"* 1 FETCH (BODY[] {8}\r\nhalfhalf)\r\n* STATUS a {1}\r\nx (MESSAGES 1)\r\n* OK ours\r\n"
        b"* STATUS b (MESSAGES 2)\r\n"
    )


def test_of_much_all_slices_are_written_before_another_has_its_turn() -> None:
    written = _Written(is_tls=True)
    arbiter = Arbiter(cast(Connection, written), Client(), lambda _, data: data.lower())
    one, two = _Speaker(), _Speaker()
    arbiter.let_through(cast(ImapUpstream, one))
    arbiter.let_through(cast(ImapUpstream, two))
    first, second = cast(Any, one).client, cast(Any, two).client
    one.say(first, b"* 1 FETCH (BODY[] {300000}\r\n", ends=False)
    two.say(second, b"* STATUS b (MESSAGES 2)\r\n")
    mail = (b"* LIST (" * SLICE_OCTETS)[:300_000]  # where a slice begins, it is no response
    one.is_inside = False  # as an upstream is that has passed on all of it
    write_much(first, mail + b")\r\n")
    assert written.octets == (
        b"* 1 FETCH (BODY[] {300000}\r\n" + mail + b")\r\n* STATUS b (MESSAGES 2)\r\n"
    )
    assert written.most == SLICE_OCTETS


@pytest.mark.parametrize("is_tls", [False, True])
async def test_who_is_notified_is_sent_much(tmp_path: Path, is_tls: bool) -> None:
    async with running_cluster(tmp_path) as cluster:
        peer = await entered(cluster, "ana")
        for session in cluster.frontends[0].frontend.sessions:
            session.connection.is_tls = is_tls  # as far as this is about it
        mail = b"Subject: x\r\n\r\n" + b"y" * 300_000
        for _ in range(3):
            await peer.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(mail), mail))
        await peer.ok(b"NOTIFY SET (SUBTREE (INBOX user) (MessageNew MessageExpunge))")
        await peer.ok(b"SELECT INBOX")
        for messages, count in ((b"1", 1), (b"1:*", 3)):
            said = await peer.ask(b"f FETCH %s BODY.PEEK[]" % messages)
            assert [mail in whole for whole in said] == [True] * count + [False]
            assert said[-1].startswith(b"f OK")
        await peer.close()


async def test_children_on_other_backends_count(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(
            r"""
Cadmin= LOGIN admin secret
Cadmin= CREATE user/ana/far be2.test
Cadmin= CREATE user/ana/above/near be1.test
C1= LOGIN ana secret
C1: a1 NOTIFY SET (SUBTREE INBOX (MessageNew MessageExpunge MailboxName))
S1: a1 OK Completed
Cadmin= CREATE user/ana/above be2.test
S1~ * LIST (\HasChildren) "/" INBOX/above
Cadmin= CREATE user/ana/far/none be2.test
S1~ * LIST (\HasNoChildren) "/" INBOX/far/none
"""
        )


async def test_what_is_subscribed_to_elsewhere_exists(tmp_path: Path) -> None:
    """The backend of the user's INBOX tells of subscriptions, and knows of no mailbox on another."""
    async with running_cluster(tmp_path) as cluster:
        await Player(cluster.connect).play(
            SHARED
            + r"""
C1: a1 NOTIFY SET (SUBTREE (INBOX user) (SubscriptionChange))
S1: a1 OK Completed
C3= LOGIN ana secret
C3= SUBSCRIBE user/bob/both
S1: * LIST (\HasNoChildren \Subscribed) "/" user/bob/both
C2= CREATE INBOX/both/below
C3= UNSUBSCRIBE user/bob/both
S1: * LIST (\HasChildren) "/" user/bob/both
C3= SUBSCRIBE INBOX/none
S1: * LIST (\NonExistent \Subscribed) "/" INBOX/none
C2= CREATE INBOX/secret
C3= SUBSCRIBE user/bob/secret
S1: * LIST (\NonExistent \Subscribed) "/" user/bob/secret
"""
        )
