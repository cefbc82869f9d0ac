"""A command that is all of what has come: how few calls it is, whoever else has one."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from murder.model.name import MailboxName
from murder.roles.mupdate.commits import ledger
from tests.kit.steps import counting_calls
from tests.rooms.mupdate.nodes import Raw, master

CONNECTIONS = 8
ROUNDS = 20
TRIES = 5  # others run on this machine: a commit may come between two of those that belong together
MOST_CALLS = 48  # of Python's functions, for one of eight that come together: some of them shared


def activate(number: int, verb: bytes = b"ACTIVATE") -> bytes:
    name, acl = b"user.ana.box%d" % number, b"ana\tlrs\t"
    words = b" ".join(b"{%d+}\r\n%b" % (len(word), word) for word in (name, b"be1!p", acl))
    return b"t %b %b" % (verb, words)


async def test_one_of_eight_that_come_together_is_so_many_calls(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    async with master(tmp_path, journal_bytes=1 << 20) as server:
        peers = [await Raw.connect(server.port) for _ in range(CONNECTIONS)]
        for attempt in range(TRIES):
            first = attempt * 1000
            with counting_calls(calls):
                for turn in range(ROUNDS):
                    numbers = range(first + turn * CONNECTIONS, first + (turn + 1) * CONNECTIONS)
                    asked = zip(peers, numbers, strict=True)
                    answers = await asyncio.gather(*(peer.ask(activate(n)) for peer, n in asked))
                    assert answers == [[b't OK "done"']] * CONNECTIONS
            each = sum(calls.values()) / (ROUNDS * CONNECTIONS)
            if each <= MOST_CALLS:
                break
            calls.clear()
        assert each <= MOST_CALLS, (each, calls)
        for peer in peers:
            await peer.close()


async def test_a_change_is_answered_the_same_however_it_comes(tmp_path: Path) -> None:
    """Alone, behind others, in another spelling, with a size that is wrong, and before the one ahead of it is answered."""
    async with master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        assert await peer.ask(activate(1)) == [b't OK "done"']
        assert await peer.ask(activate(2, b"activate")) == [b't OK "done"']
        peer.send(activate(3) + b"\r\n" + activate(4) + b'\r\nu FIND "user.ana.box4"\r\n')
        lines = await peer.until(b"u OK")
        assert lines[:2] == [b't OK "done"'] * 2 and lines[2].startswith(b"u MAILBOX")
        for wrong in (
            b't ACTIVATE {5+}\r\nuser.x "be1!p" ""',
            b't ACTIVATE "user.x" "be1!p"',
            b't ACTIVATE "user.x" "be1!p" "" ""',
        ):
            assert (await peer.ask(wrong))[-1].startswith(b"t BAD"), wrong
        assert (await peer.ask(b't ACTIVATE "user.x" "!p" ""'))[0].startswith(b"t NO")
        assert (await peer.ask(b't FORCE "user.x" "be1!p" ""'))[0].startswith(b"t NO")
        assert (await peer.ask(b't DELETE "user.x"'))[0].startswith(b"t NO")
        peer.send(activate(5) + b"\r\n")
        peer.send(activate(6) + b"\r\n")
        peer.send(b"v NOOP\r\n")
        assert (await peer.until(b"v OK"))[-3:-1] == [b't OK "done"'] * 2
        names = [MailboxName(b"user.ana.box%d" % number) for number in range(1, 7)]
        assert [entry.name for entry in server.mailboxes.walk()] == names
        stranger = await Raw.connect(server.port, user=None)
        assert (await stranger.ask(activate(7)))[0].startswith(b"t NO")
        for each in (peer, stranger):
            await each.close()


@pytest.mark.parametrize("more", [b"", b"n NOOP\r\n", b'n FIND "user.ana.box1"\r\n'])
async def test_who_sends_no_more_hears_what_became_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    """`printf ... | nc`, where the disk is waited for: the connection was closed before the answer, or never."""
    monkeypatch.setattr(ledger, "INLINE_COMMIT_S", -1.0)
    async with master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        peer.send(activate(1) + b"\r\n" + more)
        peer.writer.write_eof()
        answers = await peer.reader.read()
        assert answers.startswith(b't OK "done"\r\n')
        assert (b"\r\nn OK" in answers) == bool(more)
        await peer.close()
