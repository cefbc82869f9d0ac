"""What a backend answers in few steps is what the dialogue answers: after each change, whichever worker has made it.

Capital letters go the short way where they may, and small ones; `Status` never does: the same command is asked both ways.
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pytest

from murder.api.store import MailboxStore
from murder.config.sections import NamespaceConfig
from murder.roles.backend.imap.answers import (
    ENTRY_OCTETS,
    LONGEST,
    MOST_OCTETS,
    PLAIN,
    PLAIN_OCTETS,
    Kept,
    Listed,
)
from tests.kit.peer import Deflate, Peer
from tests.rooms.backend.server import config_in, maildir_store, running_backend, spool_store
from tests.rooms.backend.workers import two_workers

STORES: Final[dict[str, Callable[[Path], MailboxStore]]] = {
    "spool": spool_store,
    "maildir": maildir_store,
}
ASKED: Final = (
    'LIST "" "*"',
    'LIST "" %',
    "STATUS INBOX (MESSAGES UNSEEN UIDNEXT)",
    "STATUS INBOX (MESSAGES RECENT UIDVALIDITY UNSEEN DELETED SIZE)",
    "STATUS INBOX (HIGHESTMODSEQ MAILBOXID)",
    "STATUS INBOX/a (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)",
    "STATUS INBOX/b (UNSEEN)",
    'STATUS "INBOX/a" (HIGHESTMODSEQ UIDNEXT)',
    'list "" "*"',
    "status INBOX/a (messages unseen)",
    "STATUS INBOX/b&APw- (MESSAGES UNSEEN)",
)
OF_SELECTED: Final = (
    "FETCH 1:* FLAGS",
    "FETCH 1:* (FLAGS)",
    "UID FETCH 1:* (FLAGS)",
    "UID fetch 1:* (FLAGS)",
    "fetch 1:* flags",
)
CHANGES: Final = (
    "",  # nothing: it is told again
    "",
    "",
    "APPEND INBOX {4+}\r\na: b",
    "APPEND INBOX/a (\\Seen) {4+}\r\na: b",
    "APPEND INBOX/b (\\Deleted $Odd) {4+}\r\na: b",
    "STORE 1 +FLAGS (\\Seen)",
    "STORE 1 -FLAGS (\\Seen)",
    "STORE 1:2 FLAGS (\\Deleted $New#)",
    "EXPUNGE",
    "COPY 1 INBOX/a",
    "MOVE 1 INBOX/b",
    "CREATE INBOX/a",
    "CREATE INBOX/b",
    "CREATE INBOX/c#",
    "CREATE INBOX/b&APw-",
    "APPEND INBOX/b&APw- {4+}\r\na: b",
    "DELETE INBOX/b&APw-",
    "DELETE INBOX/a",
    "DELETE INBOX/b",
    "RENAME INBOX/a INBOX/b",
    "RENAME INBOX/b INBOX/a",
    'SETMETADATA INBOX/a (/private/specialuse "\\\\Sent")',
    "SETMETADATA INBOX/a (/private/specialuse NIL)",
    "SETACL INBOX bob lrs",
    "SETACL INBOX bob lr",
    "SETACL INBOX bob l",
    "DELETEACL INBOX bob",
    "SETACL INBOX/a bob lrs",
    "SUBSCRIBE INBOX/a",
    "UNSUBSCRIBE INBOX/a",
    "RENAME INBOX INBOX/d#",
    "DELETE INBOX/a;CREATE INBOX/a",  # the same name, another mailbox
    "DELETE INBOX/a;RENAME INBOX/b INBOX/a",
    "SETACL INBOX bob l;SETACL INBOX bob lrs",
    "APPEND INBOX {4+}\r\na: b;STORE * +FLAGS (\\Deleted);EXPUNGE",
)
OWN: Final = (  # what the one who asks does
    *("",) * 6,
    "ENABLE CONDSTORE",
    "ENABLE QRESYNC",
    "ENABLE UTF8=ACCEPT",
    "ENABLE IMAP4rev2",
    "EXAMINE INBOX",
    "SELECT INBOX",
    'SETMETADATA INBOX (/private/comment "#")',
    "STORE 1 +FLAGS ($Mine#)",
)
SEEN_BY_BOB: Final = (
    'LIST "" "*"',
    "STATUS user/ana (MESSAGES UNSEEN UIDNEXT)",
    "STATUS user/ana/a (MESSAGES UNSEEN RECENT)",
)


async def at(port: int, user: str) -> Peer:
    peer = await Peer.at(port)
    await peer.until(b"* OK")
    await peer.ok(f"LOGIN {user} secret")
    return peer


async def asked_twice(peer: Peer, command: str) -> None:
    """The short way and the long way."""
    short, long = await peer.command(command), await peer.command(odd(command))
    answer = b"* LIST", b"* STATUS", b"t "
    told = [line for line in short if line.startswith(answer)]
    assert told == [line for line in long if line.startswith(answer)]


def odd(command: str) -> str:
    """Its first word, as no client has it."""
    word, blank, rest = command.partition(" ")
    return word.capitalize() + blank + rest


async def compare(peer: Peer, beside: Peer, bob: Peer) -> None:
    """All that may be asked, both ways, where nobody changes anything meanwhile."""
    for command in ASKED:
        await asked_twice(peer, command)
        await asked_twice(beside, command)
    for command in SEEN_BY_BOB:
        await asked_twice(bob, command)
    await peer.ok("NOOP")  # what the others have done is told
    for _ in range(2):
        for command in OF_SELECTED:
            short, long = await peer.command(command), await peer.command(odd(command))
            assert short == long
        assert await peer.command("NOOP") == [b"t OK Completed"]


async def both_ways(ports: list[int], seed: int, steps: int) -> None:
    """Some changes in some order, by a session of the first worker, asked of sessions at the last."""
    order = random.Random(seed)
    writer, there = ports[0], ports[-1]
    changing, peer, beside = await at(writer, "ana"), await at(there, "ana"), await at(there, "ana")
    bob = await at(there, "bob")
    for words in ("CREATE INBOX/a", *["APPEND INBOX {4+}\r\na: b"] * 4):
        await changing.ok(words)
    await changing.ok("SELECT INBOX")
    await peer.ok(order.choice(("SELECT INBOX", "EXAMINE INBOX", "SELECT INBOX (CONDSTORE)")))
    for step in range(steps):
        await compare(peer, beside, bob)
        for change in order.choice(CHANGES).replace("#", str(step)).split(";"):
            if change:
                await changing.command(change)  # may be refused, too
        if own := order.choice(OWN).replace("#", str(step)):
            await peer.command(own)
    await compare(peer, beside, bob)
    for one in (changing, peer, beside, bob):
        await one.close()


@pytest.mark.parametrize("store", STORES)
async def test_the_short_way_says_what_the_dialogue_says(store: str, tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: STORES[store](tmp_path)) as running:
        await both_ways([running.address[1]], 1, 30)
        assert running.backend.answers.told > 60


async def test_what_another_worker_has_done_is_told_at_once(tmp_path: Path) -> None:
    with two_workers(tmp_path) as ports:
        await both_ways(ports, 2, 20)


@pytest.mark.parametrize("swapped", [False, True])
async def test_a_name_that_is_another_mailboxs_by_now(swapped: bool, tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await at(running.address[1], "ana")
        for words in ("CREATE INBOX/a", "CREATE INBOX/b", "APPEND INBOX/b {4+}\r\na: b"):
            await peer.ok(words)
        status = "STATUS INBOX/a (MESSAGES)"
        for _ in range(2):
            assert await peer.ok(status) == [b"* STATUS INBOX/a (MESSAGES 0)"]
        if swapped:
            await peer.ok("RENAME INBOX/a INBOX/c")
        else:
            await peer.ok("DELETE INBOX/a")
        assert (await peer.command(status))[-1].startswith(b"t NO [NONEXISTENT]")
        await peer.ok("RENAME INBOX/b INBOX/a")
        for _ in range(2):
            assert await peer.ok(status) == [b"* STATUS INBOX/a (MESSAGES 1)"]


async def test_who_logs_in_next_is_told_their_own(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await at(running.address[1], "ana")
        await peer.ok("APPEND INBOX {4+}\r\na: b")
        await peer.ok("CREATE INBOX/anas")
        both = ('LIST "" *', "STATUS INBOX (MESSAGES)")
        anas = [[await peer.ok(words) for words in both] for _ in range(2)]
        assert anas[0] == anas[1] and b"anas" in b"".join(anas[0][0])
        await peer.ok("UNAUTHENTICATE")
        assert (await peer.command("NOOP"))[-1].startswith(b"t OK")
        for words in both:
            assert not (await peer.command(words))[-1].startswith(b"t OK"), "nobody is logged in"
        await peer.ok("LOGIN bob secret")
        for _ in range(2):
            assert b"anas" not in b"".join(await peer.ok(both[0]))
            assert await peer.ok(both[1]) == [b"* STATUS INBOX (MESSAGES 0)"]


async def test_who_enables_imap4rev2_while_a_mailbox_is_selected_shares_no_recent(
    tmp_path: Path,
) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        before, behind = [await at(running.address[1], "ana") for _ in range(2)]
        await before.ok("APPEND INBOX {4+}\r\na: b")
        await before.ok("EXAMINE INBOX")
        for peer in (before, behind):
            await peer.ok("ENABLE IMAP4rev2")
        await behind.ok("EXAMINE INBOX")
        for _ in range(2):
            assert await before.ok("FETCH 1:* (FLAGS)") == [rb"* 1 FETCH (FLAGS (\Recent))"]
            assert await behind.ok("FETCH 1:* (FLAGS)") == [b"* 1 FETCH (FLAGS ())"]


async def test_what_was_listed_before_changes_no_list_of_several_domains(tmp_path: Path) -> None:
    config = config_in(tmp_path, namespace=NamespaceConfig(domains=True))
    users = "ana@x.org", "bob@y.org"
    store = partial(spool_store, tmp_path)
    async with running_backend(tmp_path, store, users, config) as running:
        peer = await at(running.address[1], "admin")
        asked = [odd(f'LIST "" {pattern}') for pattern in ("user/%", "user/*@y.org", "*@x.org")]
        before = [await peer.ok(words) for words in asked]
        assert len(await peer.ok('LIST "" *')) == len(users)
        assert [await peer.ok(words) for words in asked] == before


async def test_a_right_that_was_taken_away_counts_at_once(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        ana, bob = await at(running.address[1], "ana"), await at(running.address[1], "bob")
        await ana.ok("APPEND INBOX {4+}\r\na: b")
        await ana.ok("SETACL INBOX bob lr")
        await bob.ok("SELECT user/ana")
        asked = ("FETCH 1:* (FLAGS)", "STATUS user/ana (MESSAGES)")
        for words in asked * 3:
            await bob.ok(words)
        await ana.ok("SETACL INBOX bob l")
        for words in asked:
            assert (await bob.command(words))[-1].startswith(b"t NO [NOPERM]"), words


async def test_what_is_recent_is_told_to_its_session_only(tmp_path: Path) -> None:
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        first, second = [await at(running.address[1], "ana") for _ in range(2)]
        await first.ok("APPEND INBOX {4+}\r\na: b")
        await first.ok("SELECT INBOX")
        await second.ok("SELECT INBOX")
        for _ in range(3):
            assert await first.ok("FETCH 1:* (FLAGS)") == [rb"* 1 FETCH (FLAGS (\Recent))"]
            assert await second.ok("FETCH 1:* (FLAGS)") == [b"* 1 FETCH (FLAGS ())"]


async def test_an_answer_goes_through_deflate_as_any(tmp_path: Path) -> None:
    """And where a command comes in pieces, or with others, the dialogue reads it."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await at(running.address[1], "ana")
        await peer.ok("SELECT INBOX")
        told = [await peer.ok('LIST "" "*"') for _ in range(2)]
        peer.send(b'a LIST "" "*"\r\nb NOOP\r\nc STA')
        assert await peer.until(b"a ", b"b ") == [*told[0], b"a OK Completed"]
        assert await peer.until(b"b ") == [b"b OK Completed"]
        peer.send(b"TUS INBOX (MESSAGES)\r\n")
        assert (await peer.until(b"c "))[-1] == b"c OK Completed"
        assert (await peer.command("COMPRESS DEFLATE"))[-1].startswith(b"t OK")
        peer.deflate = Deflate()
        before = running.backend.answers.told
        assert await peer.ok('LIST "" "*"') == told[0]
        assert running.backend.answers.told == before + 1
        await peer.close()


async def test_who_has_idled_goes_the_short_way_again(tmp_path: Path) -> None:
    """And who has asked to be told between commands (NOTIFY) never does."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await at(running.address[1], "ana")
        await peer.ok("SELECT INBOX")

        async def went_short(words: str) -> bool:
            before = running.backend.answers.told
            await peer.ok(words)
            return running.backend.answers.told > before

        await peer.ok("NOOP")
        assert await went_short("NOOP")
        peer.send(b"i IDLE\r\n")
        await peer.until(b"+")
        peer.send(b"NOOP\r\n")  # no command: it ends IDLE, wrongly
        assert (await peer.until(b"i "))[-1].startswith(b"i BAD")
        peer.send(b"i IDLE\r\n")
        await peer.until(b"+")
        peer.send(b"DONE\r\n")
        await peer.until(b"i OK")
        assert await went_short("NOOP")
        await peer.ok("NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        assert not await went_short("NOOP")
        await peer.ok("NOTIFY NONE")
        assert await went_short("CHECK")
        await peer.close()


async def test_who_takes_no_answers_is_not_read(tmp_path: Path) -> None:
    """The short way has no back-pressure of its own: what is behind goes to the dialogue, which has."""
    async with running_backend(tmp_path, lambda: spool_store(tmp_path)) as running:
        peer = await at(running.address[1], "ana")
        for _ in range(3):
            burst = b"".join(b"a APPEND INBOX {4+}\r\na: b\r\n" for _ in range(100))
            peer.send(burst + b"z NOOP\r\n")
            await peer.until(b"z ")
        await peer.ok("SELECT INBOX")
        await peer.ok("FETCH 1:* (FLAGS)")
        (session,) = cast(Any, running.backend.sessions)
        connection = session.connection
        peer.transport.pause_reading()
        most = 0
        asked = b"f FETCH 1:* (FLAGS)\r\n"
        for _ in range(3000):
            session.received(asked)  # as the loop does
            most = max(most, connection.pending())
        assert connection.writing_paused
        assert most < 1024 * 1024
        peer.transport.resume_reading()
        await peer.until(b"f OK")
        await peer.close()


def test_what_is_kept_is_bounded() -> None:
    kept = Kept[Listed]()
    kept.keep("long", Listed(1, b"x" * (LONGEST + 1)))
    assert kept.get("long") is None
    most = MOST_OCTETS // (ENTRY_OCTETS + 1000)
    for number in range(10 * most):
        kept.keep(number, Listed(1, b"x" * 1000))
    found = [number for number in range(10 * most) if number in kept.young or number in kept._old]
    assert most // 2 <= len(found) <= most
    assert found[-1] == 10 * most - 1


def test_what_has_been_told_of_late_stays() -> None:
    kept = Kept[Listed]()
    kept.keep("mine", Listed(1, b"x"))
    for number in range(10 * MOST_OCTETS // ENTRY_OCTETS):
        kept.keep(number, Listed(1, b""))
        assert kept.get("mine") is not None


@pytest.mark.parametrize(
    ("octets", "is_plain"),
    [
        (b"a NOOP\r\n", True),
        (b"a noop\r\n", True),
        (b"a Noop\r\n", False),
        (b"a NOOP\n", False),
        (b"a NOOP \r\n", False),
        (b"a NOOP\r\nb NOOP\r\n", False),
        (b'a1 LIST "" "*"\r\n', True),
        (b'a1 LIST "" "a*"\r\n', True),
        (b"a1 LIST a *\r\n", False),
        (b'a1 LIST "" (a b)\r\n', False),
        (b"a STATUS INBOX (MESSAGES)\r\n", True),
        (b'a STATUS "a b" (MESSAGES UNSEEN)\r\n', True),
        (b"a STATUS a b (MESSAGES)\r\n", False),
        (b'a STATUS "a\\"b" (MESSAGES)\r\n', False),
        (b"a STATUS {5}\r\n", False),
        (b"a STATUS Entw&APw-rfe (MESSAGES)\r\n", True),
        (b'a status "a b" (messages unseen)\r\n', True),
        (b"a STATUS a (Messages)\r\n", False),
        (b"a FETCH 1:* (FLAGS)\r\n", True),
        (b"a UID fetch 1:* (FLAGS)\r\n", True),
        (b"a UID FETCH 1:* FLAGS\r\n", True),
        (b"a FETCH 1:* (FLAGS UID)\r\n", False),
    ],
)
def test_what_goes_the_short_way(octets: bytes, is_plain: bool) -> None:
    assert (PLAIN.fullmatch(octets) is not None) == is_plain
    assert not is_plain or len(octets) <= PLAIN_OCTETS
