"""What a backend says to a frontend that follows moves: nothing of a move's stop, then what the client knows; and how it
takes such a client up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from murder.model.seqset import Ranges
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.moves.outgoing import freeze
from murder.roles.mupdate.database.change import RemoveEntry
from murder.session.imap_client import MAX_HELD_OCTETS
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.moved import parse_view, view_in
from murder.wire.token import Scanner
from tests.kit.dialogue import Player
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import Running, running_backend

INBOX = MailboxName(b"user.ana")
BEGIN = r"""
C1= LOGIN ana secret
C1= APPEND INBOX {...}
C1> one
C1= APPEND INBOX {...}
C1> two
C1= ID ("x-follows-moves" "1")
C1: s1 SELECT INBOX
S1~ * OK [UIDVALIDITY $validity] $_
S1~ s1 OK [READ-WRITE] $_
C2= LOGIN ana secret
C2= SELECT INBOX
"""


@asynccontextmanager
async def playing(folder: Path) -> AsyncIterator[tuple[Running, Player]]:
    async with running_backend(folder, users=("ana",)) as running:

        async def connect(_: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(*running.address)

        player = Player(connect)
        await player.play(BEGIN, keep=True)
        yield running, player


async def let_go(running: Running) -> None:
    """As the end of a move does at its source."""
    backend = running.backend
    mailbox = await backend.store.open(INBOX, "ana")
    await backend.announcer.commit([RemoveEntry(INBOX)])
    backend.mailboxes.has_left = lambda name: name == INBOX
    backend.tracker.mailbox_changed(mailbox.mailbox_id)
    mailbox.close()


async def until_held(running: Running) -> None:
    await until_soon(lambda: any(getattr(one, "_again", None) for one in running.backend.sessions))


async def test_a_change_waits_for_the_end_of_a_stop(tmp_path: Path) -> None:
    async with playing(tmp_path) as (running, player):
        await freeze(running.backend, [INBOX], True)
        await player.play("C2: x1 STORE 1 +FLAGS (\\Seen)\nS2: x1 NO [INUSE] $_", keep=True)
        await player.play("C1: a1 STORE 1 +FLAGS (\\Flagged)\nC1: a2 NOOP", keep=True)
        await until_held(running)
        await freeze(running.backend, [INBOX], False)
        await player.play(
            "S1: * 1 FETCH (FLAGS (\\Recent \\Flagged))\nS1: a1 OK $_\nS1: a2 OK $_", keep=True
        )


async def test_what_waited_is_not_begun_where_the_mailbox_has_left(tmp_path: Path) -> None:
    async with playing(tmp_path) as (running, player):
        await freeze(running.backend, [INBOX], True)
        await player.play("C1: a1 STORE 1 +FLAGS (\\Flagged)\nC1: a2 NOOP", keep=True)
        await until_held(running)
        await let_go(running)
        await player.play("S1: * BYE [X-MOVED $validity $_ 2 2 0] $_", keep=True)
        # who does not follow hears what is true
        await player.play("C2: x1 NOOP\nS2: * BYE The selected mailbox has moved $_", keep=True)


async def test_who_is_late_is_handed_over_without_the_store(tmp_path: Path) -> None:
    """What had left has gone from the store meanwhile, as where another of its name has come: the client heard NO for each
    command."""
    async with playing(tmp_path) as (running, player):
        await let_go(running)
        await running.backend.store.delete(INBOX)
        await player.play("C1: a1 NOOP\nS1: * BYE [X-MOVED $validity $_ 2 2 0] $_", keep=True)


@pytest.mark.parametrize(
    "command", ["COPY 1 INBOX", "STORE 1 +FLAGS.SILENT (\\Seen)", "APPEND INBOX {...}\nC1> three"]
)
async def test_what_was_done_for_who_uses_notify_is_answered_before_that_is_handed_over(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an answer it was begun once more at the new server, and a copy came there twice."""
    async with playing(tmp_path) as (running, player):
        await player.play("C1= NOTIFY SET (selected (messagenew messageexpunge))", keep=True)
        finish = BackendImap.finish

        async def leave_before(dialogue: BackendImap, command: Command, *a: Any, **k: Any) -> None:
            await let_go(running)
            await finish(dialogue, command, *a, **k)

        def conclude(dialogue: BackendImap, command: Command, *a: Any, **k: Any) -> Any:
            k.pop("look", None)
            return dialogue.finish(command, *a, **k)

        monkeypatch.setattr(BackendImap, "finish", leave_before)
        monkeypatch.setattr(BackendImap, "conclude", conclude)
        await player.play(f"C1: a1 {command}", keep=True)
        await player.play(r"S1~ a1 OK $_", keep=True)
        await player.play("S1~ * BYE [X-MOVED $validity $_ $_ $_ 0] $_", keep=True)


async def test_a_search_that_is_begun_anew_elsewhere_is_not_said_to_have_ended(
    tmp_path: Path,
) -> None:
    """RFC 5267 §4.3.1: others are. It had been answered but for its OK."""
    async with playing(tmp_path) as (running, player):
        await player.play("C1: a1 UID SEARCH RETURN (UPDATE) ALL\nS1~ a1 OK $_", keep=True)
        (session,) = (one for one in running.backend.sessions if getattr(one, "contexts", None))
        assert isinstance(session, BackendImap)
        finish, finished = session.finish, list[bytes]()

        async def fail_once(command: Command, *a: Any, **k: Any) -> None:
            if finished:
                return await finish(command, *a, **k)
            finished.append(command.tag)
            await let_go(running)
            raise Refusal(Code.UNAVAILABLE, "The store has let go of it")

        def conclude(command: Command, *a: Any, **k: Any) -> Any:
            k.pop("look", None)
            return session.finish(command, *a, **k)

        cast(Any, session).finish = fail_once
        cast(Any, session).conclude = conclude
        await player.play("C1: a2 UID SEARCH RETURN (UPDATE) ALL", keep=True)
        await player.play(
            'S1: * ESEARCH (TAG "a2") $_\nS1: * NO [NOUPDATE "a1"] $_\nS1: * BYE [X-MOVED $_',
            keep=True,
        )
        assert finished == [b"a2"]


async def test_a_client_is_taken_up_with_what_it_knows(tmp_path: Path) -> None:
    async with playing(tmp_path) as (_, player):
        await player.play(
            r"""
C1= UNSELECT
C2= STORE 1 +FLAGS.SILENT (\Deleted)
C2= EXPUNGE
C2= APPEND INBOX {...}
C2> three
# up to mod-sequence 3 it has been told of two messages, the last of which was UID 2
C1: v1 SELECT INBOX (X-VIEW ($validity 3 2 2 0))
S1: v1 OK [READ-WRITE] Completed
C1: v2 FETCH 2 (UID)
S1: * 2 FETCH (UID 2)
S1~ v2 OK $_
C1: v3 NOOP
S1: * 1 EXPUNGE
S1: v3 OK $_
C1: v4 FETCH 1:* (UID)
S1: * 1 FETCH (UID 2)
S1: * 2 FETCH (UID 3)
S1: v4 OK $_
C1= UNSELECT
# what does not fit is refused, and nothing is selected
C1: w1 SELECT INBOX (X-VIEW ($validity 3 7 2 0))
S1: w1 NO [CANNOT] $_
C1: w2 SELECT INBOX (X-VIEW (1 3 2 2 0))
S1: w2 NO [CANNOT] $_
C1: w3 FETCH 1 (UID)
S1: w3 BAD $_
# not for everybody
C2: w4 SELECT INBOX (X-VIEW ($validity 3 2 2 0))
S2~ w4 BAD $_
""",
            keep=True,
        )


async def test_recent_is_never_more_than_exists_where_a_mailbox_has_come(tmp_path: Path) -> None:
    async with playing(tmp_path) as (_, player):
        await player.play(
            r"""
C1= UNSELECT
C2= STORE 1 +FLAGS.SILENT (\Deleted)
C2= EXPUNGE
# elsewhere it may have been told that both are recent
C1: v1 SELECT INBOX (X-VIEW ($validity 3 2 2 0))
S1: v1 OK [READ-WRITE] Completed
C1: v2 NOOP
S1: * 1 EXPUNGE
S1: * 0 RECENT
S1: v2 OK $_
C2= STORE 1 +FLAGS.SILENT (\Deleted)
C2= EXPUNGE
C1: v3 NOOP
S1: * 1 EXPUNGE
S1: v3 OK $_
""",
            keep=True,
        )


async def test_notify_asked_again_changes_no_numbers(tmp_path: Path) -> None:
    """The client has sent a FETCH by numbers, which waits until its session goes on."""
    async with playing(tmp_path) as (_, player):
        await player.play(
            r"""
C1= UNSELECT
C2= STORE 1 +FLAGS.SILENT (\Deleted)
C2= EXPUNGE
C1= SELECT INBOX (X-VIEW ($validity 3 2 2 0))
C1: n1 NOTIFY SET (selected-delayed (messagenew messageexpunge))
S1: n1 OK $_
C1: n2 FETCH 2 (UID)
S1: * 2 FETCH (UID 2)
S1: n2 OK $_
C1: n3 NOOP
S1: * 1 EXPUNGE
S1: * 0 RECENT
S1: n3 OK $_
""",
            keep=True,
        )


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (((1, 1), (3, 9)), b" 1,3:9"),
        (tuple((uid, uid) for uid in range(1, 4001, 2)), b" 1,3,5"),
        (tuple((uid, uid) for uid in range(1, 8001, 2)), b" *]"),
        (tuple((uid, uid) for uid in range(1, 40_001, 2)), b" *]"),
        (None, b" *]"),
    ],
)
async def test_a_saved_result_goes_along_up_to_a_length(
    tmp_path: Path, saved: Ranges | None, told: bytes
) -> None:
    """Whatever it is, the mailbox does."""
    async with playing(tmp_path) as (running, player):
        for session in running.backend.sessions:
            assert isinstance(session, BackendImap)
            session.saved = saved
        await let_go(running)
        await player.play("C1: a1 NOOP\nS1: * BYE $said", keep=True)
        bye = b"* BYE " + player.bound["said"].encode()
        assert told in bye and len(bye) < MAX_HELD_OCTETS
        view, is_idling = view_in(bye)
        assert view and not is_idling
        seen = parse_view(Scanner(view))
        assert bytes(seen) == view
        assert seen.saved == (None if told == b" *]" else saved)


async def test_where_a_saved_result_was_too_long_the_client_searches_again(tmp_path: Path) -> None:
    async with playing(tmp_path) as (_, player):
        await player.play(
            r"""
C1= UNSELECT
C1: v1 SELECT INBOX (X-VIEW ($validity 3 2 2 0 *))
S1: v1 OK [READ-WRITE] Completed
# nothing is done to no message, and told to be done
C1: v2 STORE $ +FLAGS (\Seen)
S1: v2 NO [NOTSAVED] $_
C1: v3 UID SEARCH NOT $
S1: v3 NO [NOTSAVED] $_
C1: v4 SEARCH ALL
S1: * SEARCH 1 2
S1: v4 OK $_
C1: v5 SEARCH RETURN (SAVE) 2
S1: v5 OK $_
C1: v6 FETCH $ (UID)
S1: * 2 FETCH (UID 2)
S1: v6 OK $_
""",
            keep=True,
        )
