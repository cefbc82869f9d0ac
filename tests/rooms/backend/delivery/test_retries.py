"""A process dies behind what a script wanted, and before the sender hears so: the sender's next try makes nothing twice, and
no other message is taken for it."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from murder.model.name import inbox_of
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.delivery.copies import Copies
from murder.roles.backend.records.deliveries import FAILED, Deliveries
from murder.roles.backend.records.living import (
    DEAD,
    HEARD_S,
    NOTE_EVERY_S,
    REMEMBERED_S,
    Living,
)
from murder.roles.backend.records.taken import Taken
from murder.roles.backend.scripts import elsewhere
from murder.roles.backend.scripts.elsewhere import Known, append_elsewhere
from murder.roles.backend.scripts.places import Place
from tests.kit.powercut import MISSING, Bare, Story
from tests.kit.process import ROOT
from tests.kit.sections import server_section
from tests.kit.waiting import until_soon
from tests.rooms.backend.delivery.test_sieve_delivery import (
    MESSAGE,
    deliver_and_die,
    delivering,
    died,
    sending,
)
from tests.rooms.backend.server import (
    Parts,
    Running,
    config_in,
    maildir_store,
    running_backend,
    spool_store,
    subjects_of,
)

FILE = b'require "fileinto"; fileinto "INBOX/A";'
FLAG = b'require ["fileinto", "editheader"]; addheader "X-Seen" "yes"; fileinto "INBOX/A";'
MANY = b"y" * 79 + b"\r\n"  # a line of a message that is in a file


async def file_and_die(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: bytes,
    parts: Parts,
    *recipients: str,
    message: bytes = b"",
) -> None:
    """The one copy is there, and its sender has not heard so."""
    really = Copies.add

    async def dies(copies: Copies, *given: object) -> None:
        await really(copies, *given)  # type: ignore[arg-type] # passed on
        raise OSError("gone")

    async with delivering(folder, script, parts=parts) as client:
        await client.create("A")
        monkeypatch.setattr(Copies, "add", dies)
        answers = await client.deliver("one", *recipients, message=message)
        assert all(answer.startswith(b"4") for answer in answers)
        monkeypatch.setattr(Deliveries, "close", died)
    monkeypatch.undo()


@pytest.fixture(params=[spool_store, maildir_store])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Parts:
    make: Callable[[Path], MailboxStore] = request.param
    return Parts(lambda: make(tmp_path))


@pytest.mark.parametrize("script", [FILE, FLAG, b"keep;"], ids=["fileinto", "edited", "keep"])
async def test_a_death_behind_a_single_copy_makes_no_second_one(
    script: bytes, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file_and_die(tmp_path, monkeypatch, script, parts)
    folder = "" if script == b"keep;" else "A"
    async with delivering(tmp_path, parts=parts) as client:  # after a start
        for copies in (1, 2):  # the second one is no retry
            assert (await client.deliver("one"))[0].startswith(b"250")
            assert await client.subjects(folder) == [("one", [])] * copies
    async with delivering(tmp_path, parts=parts) as client:  # who ends in order has told all of it
        assert (await client.deliver("one"))[0].startswith(b"250")
        assert await client.subjects(folder) == [("one", [])] * 3


async def test_nor_does_a_large_one_and_its_file_goes(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = MESSAGE % (b"one", b"one") + MANY * 20_000
    await file_and_die(tmp_path, monkeypatch, FILE, parts, message=large)
    async with delivering(tmp_path, parts=parts) as client:
        assert (await client.deliver("one", message=large))[0].startswith(b"250")
        assert await client.subjects("A") == [("one", [])]
    files = [file for file in tmp_path.rglob("*") if file.is_file() and ".db" not in file.name]
    assert sum(file.stat().st_size > len(MANY) * 15_000 for file in files) == 1


async def test_a_script_that_fails_keeps_it_once_too(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with delivering(tmp_path, b"keep;", parts=parts) as client:
        await client.one.backend.scripts.put("ana", "main", b"this is none")
    await file_and_die(tmp_path, monkeypatch, b"", parts)
    async with delivering(tmp_path, parts=parts) as client:
        assert (await client.deliver("one"))[0].startswith(b"250")
        assert await client.subjects() == [("one", [])]


async def test_two_recipients_of_one_mailbox_are_two_deliveries(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("ana", "ana+nowhere")
    await file_and_die(tmp_path, monkeypatch, FILE, parts, *to)
    async with delivering(tmp_path, parts=parts) as client:
        for copies in (2, 4):
            answers = await client.deliver("one", *to)
            assert [answer[:3] for answer in answers] == [b"250"] * 2
            assert await client.subjects("A") == [("one", [])] * copies


@pytest.mark.parametrize("difference", ["body", "date", "sender"])
async def test_another_message_with_its_message_id_is_no_retry(
    difference: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = b"Date: Mon, 30 Nov 2026 12:00:00 +0000\r\n" + MESSAGE % (b"one", b"always")
    await file_and_die(tmp_path, monkeypatch, FILE, parts, message=alarm)
    other = alarm.replace(b"12:00", b"13:00") if difference == "date" else alarm
    sender = "other@example.org" if difference == "sender" else "sender@example.org"
    more = b"and more\r\n" if difference == "body" else b""
    async with delivering(tmp_path, parts=parts) as client:
        for message, copies in ((other + more, 2), (alarm, 2 + (difference == "sender"))):
            answers = await client.deliver("one", message=message, sender=sender)
            assert answers[0].startswith(b"250")
            assert await client.subjects("A") == [("one", [])] * copies


def age(folder: Path, seconds: float, *, died_now: bool = False) -> None:
    """All of it happened so long ago; but for the death, with `died_now`."""
    for file in () if died_now else (folder / "backend/deliveries/living").iterdir():
        at = file.stat().st_mtime - seconds
        os.utime(file, (at, at))
    for file in folder.rglob("*.db"):
        with closing(sqlite3.connect(file)) as db, db:
            for table in ("begun", "once"):
                if db.execute("SELECT 1 FROM sqlite_master WHERE name=?", (table,)).fetchone():
                    db.execute(f"UPDATE {table} SET at=at-?", (int(seconds),))


@pytest.mark.parametrize("single", [True, False])
async def test_a_node_that_was_down_for_long_knows_the_retry_too(
    single: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(lambda: spool_store(tmp_path))
    if single:
        await file_and_die(tmp_path, monkeypatch, FILE, parts)
    else:
        await deliver_and_die(tmp_path, monkeypatch, "one")
    age(tmp_path, 3 * 86_400)
    async with delivering(tmp_path) as client:
        assert (await client.deliver("other"))[0].startswith(b"250")  # what is old is looked at
        assert (await client.deliver("one"))[0].startswith(b"250")
        copies = [subject for subject, _ in await client.subjects("A")]
        assert copies == (["one", "other"])
    living = tmp_path / "backend/deliveries/living"
    for file in living.glob(f"{DEAD}*"):
        os.utime(file, (time.time() - REMEMBERED_S - 1, 0))
    async with delivering(tmp_path) as client:
        assert not list(living.glob(f"{DEAD}*"))
        assert (await client.deliver("one"))[0].startswith(b"250")
        assert len(await client.subjects("A")) == 3


async def test_the_retry_is_delivered_where_the_mail_is_an_older_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put back from a backup, while what was noted of deliveries is of today."""
    await deliver_and_die(tmp_path, monkeypatch, "one")
    async with delivering(tmp_path) as client:
        await client.one.backend.deliveries.forget_begun()
        assert (await client.deliver("one"))[0].startswith(b"250")
        for folder in ("", "A", "B"):  # the copy has none of the first ones
            assert await client.subjects(folder) == [("one", [])] * 2


@pytest.mark.parametrize("single", [True, False])
async def test_what_was_done_long_before_a_death_is_no_reason_to_drop_the_same_again(
    single: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some machine says every week, without date and Message-ID."""
    alarm = b"Subject: alarm\r\n\r\nall is well\r\n"
    if single:
        parts = Parts(lambda: spool_store(tmp_path))
        await file_and_die(tmp_path, monkeypatch, FILE, parts, message=alarm)
    else:
        await deliver_and_die(tmp_path, monkeypatch, "alarm", alarm)
    age(tmp_path, HEARD_S + NOTE_EVERY_S + 60, died_now=True)
    async with delivering(tmp_path) as client:
        assert (await client.deliver("alarm", message=alarm))[0].startswith(b"250")
        assert await client.subjects("A") == [("alarm", [])] * 2


def test_who_has_died_is_known_from_the_next_start_on(tmp_path: Path) -> None:
    first, second = Living(tmp_path), Living(tmp_path)
    now = time.time()
    assert not second.has_died(first.name, now)
    os.close(first._lock)
    assert second.has_died(first.name, now)
    assert not second.has_died(first.name, now - HEARD_S - 60)
    long_ago = 1_000_000_000
    os.utime(tmp_path / first.name, (long_ago, long_ago))
    third, fourth = Living(tmp_path), Living(tmp_path)
    for other in (second, third, fourth):
        assert other.has_died(first.name, long_ago)
        assert not other.has_died(first.name, long_ago - HEARD_S)
    second.close()
    assert not third.has_died(second.name, now)
    third.close()
    fourth.close()


def test_a_sign_of_life_is_known_when_it_was_the_last(tmp_path: Path) -> None:
    first, second = Living(tmp_path), Living(tmp_path)
    os.utime(first._lock, (1_000_000_000, 1_000_000_000))
    first.note()
    os.close(first._lock)
    assert not second.has_died(first.name, 1_000_000_000)
    assert second.has_died(first.name, time.time())
    second.close()


async def test_a_process_that_has_nothing_to_deliver_gives_signs_of_life(tmp_path: Path) -> None:
    deliveries, other = Deliveries(tmp_path), Living(tmp_path / "living")
    living = deliveries._living
    os.utime(living._lock, (1_000_000_000, 1_000_000_000))
    noting = asyncio.create_task(deliveries.keep_noting())
    file = tmp_path / "living" / living.name
    await until_soon(lambda: file.stat().st_mtime > 1_000_000_000)
    noting.cancel()
    deliveries.close()
    other.close()


CUT_OFF = """
import os, sys
from pathlib import Path
from murder.roles.backend.records.living import Living
folder = Path(sys.argv[1])
folder.mkdir()
print(Living(folder / "living").name, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(bool(MISSING) and os.environ.get("CI") != "true", reason=MISSING)
def test_who_is_cut_off_with_the_power_has_died(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    story = Story(disk)
    command = [sys.executable, "-c", CUT_OFF, str(disk / "deliveries")]
    done = subprocess.run(
        story.traced(command), cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    *_, last = story.syncs()
    last.write_to(tmp_path / "copy", Bare())
    assert Living(tmp_path / "copy/deliveries/living").has_died(done.stdout.strip(), time.time())


REDIRECT = b'redirect "else@example.org";'


async def test_what_is_only_redirected_goes_out_although_another_has_its_message_id(
    tmp_path: Path,
) -> None:
    alarm = MESSAGE % (b"alarm", b"always")
    async with sending(tmp_path, REDIRECT) as (client, sink):
        for body in (b"one\r\n", b"two\r\n", b"one\r\n"):
            assert (await client.deliver("alarm", message=alarm + body))[0].startswith(b"250")
        assert len(client.states()) == 2
        await until_soon(lambda: len(sink.taken) == 2, "both are sent")
        assert sorted(octets[-5:] for _, _, octets in sink.taken) == [b"one\r\n", b"two\r\n"]


async def test_what_could_not_be_redirected_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node dies behind that copy, and before it is written down that the mail has been given up."""

    is_kept = asyncio.Event()

    async def dies(books: Deliveries, *_: object) -> None:
        is_kept.set()
        raise OSError("gone")

    def is_not_noted(*_: object) -> None:
        raise OSError("gone")

    refused = [b"550 no"] * 9
    async with sending(tmp_path, REDIRECT, *refused) as (client, _):
        monkeypatch.setattr(Taken, "note", is_not_noted)
        monkeypatch.setattr(Deliveries, "failed", dies)
        assert (await client.deliver("one"))[0].startswith(b"250")
        await until_soon(is_kept.is_set, "it is kept")
        monkeypatch.setattr(Deliveries, "close", died)
    monkeypatch.undo()
    async with sending(tmp_path, b"", *refused) as (client, _):
        await until_soon(lambda: client.states() == [FAILED], "it is given up")
        assert await client.subjects() == [("one", [])]


@asynccontextmanager
async def far_away(folder: Path) -> AsyncIterator[tuple[Running, Upstreams, Place]]:
    """A backend, and ana's INBOX there as others reach it."""
    config = config_in(folder, proxies=("be2",))
    async with running_backend(folder, config=config) as running:
        far = server_section(
            address=running.address[0],
            imap=running.address[1],
            tls="none",
            auth="plain",
            proxy_user="be2",
            proxy_password="secret",
        )
        ways = Upstreams(replace(config, servers={"far.test": far}))
        yield running, ways, Place(inbox_of("ana"), "far.test")


async def test_a_copy_is_looked_for_among_many_by_answers_that_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a message without Message-ID and date, which all that are there may be."""
    async with far_away(tmp_path) as (running, ways, place):

        async def put(body: bytes, message_id: bytes, is_again: bool) -> int:
            known = Known(message_id, b"", memoryview(body)) if is_again else None
            head = b"Message-ID: %b\r\n\r\n" % message_id if message_id else b"Subject: x\r\n\r\n"
            words = frozenset[str](), (head, body)
            await append_elsewhere(running.backend, ways, place, "ana", *words, known)
            return len(await subjects_of(running.backend, "ana"))

        for message_id in (b"", b"<always@x>"):
            before = 0
            for number in range(40):
                before = await put(b"%d" % number, message_id, False)
            monkeypatch.setattr(elsewhere, "MAX_ANSWER_OCTETS", 400)
            monkeypatch.setattr(elsewhere, "MAX_SEARCHED", 30)
            monkeypatch.setattr(elsewhere, "MAX_LOOKED_AT", 2)
            assert await put(b"39", message_id, True) == before
            assert await put(b"new", message_id, True) == before + 1
            monkeypatch.undo()


async def test_a_copy_at_another_backend_is_known_by_its_body_too(tmp_path: Path) -> None:
    async with far_away(tmp_path) as (running, ways, place):
        head = b"Subject: one\r\nMessage-ID: <always@x>\r\nDate: %b\r\n\r\n"
        for date, body, is_again, copies in (
            (b"today", b"one", False, 1),
            (b"today", b"two", True, 2),  # it has another body
            (b"today", b"one", True, 2),
            (b"today", b"two", True, 2),
            (b"then", b"two", True, 3),
            (b"then", b"", True, 4),
            (b"then", b"", True, 4),
            (b"then", b"one", False, 5),
            (b"then", b"y" * 100_000 + b"a", True, 6),
            (b"then", b"y" * 100_000 + b"a", True, 6),
        ):
            known = Known(b"<always@x>", date, memoryview(body)) if is_again else None
            pieces = (head % date, body)
            await append_elsewhere(running.backend, ways, place, "ana", frozenset(), pieces, known)
            assert len(await subjects_of(running.backend, "ana")) == copies, (date, body[:5])
