"""Maildir++ as others leave it: trees made by Dovecot and Courier, changes behind our back, and Dovecot reading ours."""

import asyncio
import os
import re
import sqlite3
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.api import FlagChange, Mailbox, NewMessage
from murder.errors import Code, Refusal
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName
from plugins.store_maildir.files import read_subscriptions, read_uidlist, write_subscriptions
from plugins.store_maildir.store import MaildirStore, Settings
from plugins.store_maildir.tree import Tree
from tests.conftest import cannot_run
from tests.kit.process import open_folder

DOVECOT = Path("/usr/lib/dovecot/imap")
NOBODY = 65534
INBOX = MailboxName(b"user.ana")
SUB = MailboxName(b"user.ana.Sub.Folder")
ONE = b"From: a@b.example\r\nSubject: one\r\n\r\nhello\r\n"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with open_folder() as folder:  # Dovecot's user may go there
        yield folder


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[MaildirStore]:
    store = MaildirStore(Settings(users="mail/%u/Maildir", shared="mail/+%n"), folder)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def append(
    store: MaildirStore, box: Mailbox, octets: bytes, flags: frozenset[str] = frozenset()
) -> Uid:
    incoming = store.incoming()
    await incoming.write(octets)
    try:
        return (await box.append([NewMessage(incoming, flags)]))[0]
    finally:
        await incoming.close()


async def flags_in(box: Mailbox) -> dict[int, set[str]]:
    return {int(row.uid): set(row.flags) for row in await box.messages()}


class Dovecot:
    """Dovecot's own IMAP, started for one dialogue at a time, without its servers."""

    def __init__(self, folder: Path) -> None:
        if not DOVECOT.exists():
            cannot_run("dovecot-imapd is not installed")
        self.folder, self.config = folder, folder / "dovecot.conf"
        self.config.write_text(
            f"base_dir={folder}/run\nstate_dir={folder}/run\nlog_path={folder}/log\nssl=no\n"
            f"mail_location=maildir:{folder}/mail/%u/Maildir\nprotocols=imap\n"
            "first_valid_uid=1\nfirst_valid_gid=1\nmail_uid=65534\nmail_gid=65534\n"
            "default_internal_user=nobody\ndefault_internal_group=nogroup\n"
            "namespace inbox {\n  inbox=yes\n  separator=/\n}\n"
        )
        for name in ("run", "mail/ana"):
            (folder / name).mkdir(parents=True)

    def say(self, *commands: str | tuple[str, bytes]) -> str:
        """Commands one after the other; all that it said."""
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "nobody:nogroup", self.folder], check=True)
        as_nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        process = subprocess.Popen(
            [*(as_nobody if os.getuid() == 0 else []), DOVECOT, "-c", self.config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"USER": "ana", "HOME": str(self.folder / "mail/ana"), "PATH": os.environ["PATH"]},
        )
        assert process.stdin is not None and process.stdout is not None
        octets = b""
        for number, command in enumerate([*commands, "LOGOUT"]):
            words, literal = command if isinstance(command, tuple) else (command, None)
            line = b"c%d %s" % (number, words.encode())
            if literal is not None:
                line += b" {%d+}\r\n%s" % (len(literal), literal)
            process.stdin.write(line + b"\r\n")
            process.stdin.flush()
            while not octets.endswith(b"\n") or b"\nc%d " % number not in octets:  # one at a time
                octets += (more := process.stdout.readline())
                assert more, octets
        said = octets.decode("latin-1")
        _, errors = process.communicate(timeout=30)
        assert " NO " not in said and " BAD " not in said, said
        complaints = re.findall(r"(?:Error|Warning|Panic|Fatal): .*", errors.decode())
        assert not complaints, complaints
        return said


def fetched(said: str) -> dict[int, set[str]]:
    """UID to flags, of `UID FETCH 1:* FLAGS`."""
    return {
        int(uid): set(flags.split()) - {"\\Recent"}
        for uid, flags in re.findall(r"FETCH \(UID (\d+) FLAGS \(([^)]*)\)", said)
    }


def filled_by(dovecot: Dovecot) -> str:
    """What a user may have: gaps in the UIDs, keywords, subfolders, subscriptions, LF and CRLF."""
    return dovecot.say(
        ("APPEND INBOX (\\Seen $Label1)", ONE),
        (
            'APPEND INBOX () "01-Feb-2020 03:04:05 +0000"',
            b"Subject: two\r\n\r\n" + b"line\r\n" * 2000,
        ),
        ("APPEND INBOX", ONE),
        "CREATE Sub/Folder",
        "CREATE &AOQ-b",
        "SUBSCRIBE Sub/Folder",
        "SUBSCRIBE INBOX",
        "SELECT INBOX",
        "STORE 1 +FLAGS (\\Flagged work \\Deleted)",
        "STORE 3 +FLAGS (work)",
        "COPY 1 Sub/Folder",
        "EXPUNGE",
        ("APPEND INBOX (\\Answered \\Draft)", ONE),
        "STATUS INBOX (UIDVALIDITY UIDNEXT)",
        "STATUS Sub/Folder (UIDVALIDITY UIDNEXT)",
    )


def numbers_in(said: str, mailbox: str) -> tuple[int, int]:
    found = re.search(rf"STATUS {mailbox} \(UIDNEXT (\d+) UIDVALIDITY (\d+)\)", said)
    assert found, said
    return int(found.group(2)), int(found.group(1))


async def test_a_tree_of_dovecot_is_taken_over_and_given_back(tmp_path: Path) -> None:
    dovecot = Dovecot(tmp_path)
    said = filled_by(dovecot)
    new = b"Subject: ours\r\n\r\n" + b"text\r\n" * 100

    async with stored(tmp_path) as store:
        names = {one.name for one in await store.mailboxes()}
        assert names == {INBOX, SUB, MailboxName(b"user.ana.&AOQ-b")}
        assert set(await store.subscriptions("ana")) == {INBOX, SUB}
        inbox, sub = await store.open(INBOX, "ana"), await store.open(SUB, "ana")
        status, below = await inbox.status(), await sub.status()
        assert (status.uid_validity, status.uid_next) == numbers_in(said, "INBOX")
        assert (below.uid_validity, below.uid_next) == numbers_in(said, "Sub/Folder")
        assert await flags_in(inbox) == {2: set(), 3: {"work"}, 4: {"\\Answered", "\\Draft"}}
        assert await flags_in(sub) == {1: {"\\Seen", "\\Flagged", "\\Deleted", "$Label1", "work"}}
        two = (await inbox.messages([Uid(2)]))[0]
        assert two.internal_date.isoformat() == "2020-02-01T03:04:05+00:00"
        assert bytes(await inbox.octets(Uid(2))) == b"Subject: two\r\n\r\n" + b"line\r\n" * 2000
        assert two.size == len(await inbox.octets(Uid(2)))
        assert await append(store, inbox, new, frozenset({"\\Seen", "fresh"})) == 5
        await inbox.change_flags([Uid(3)], FlagChange.ADD, frozenset({"\\Flagged", "more"}))
        await inbox.change_flags([Uid(4)], FlagChange.REMOVE, frozenset({"\\Draft"}))
        await inbox.expunge([Uid(2)])
        assert dict(await inbox.copy([Uid(3)], sub)) == {3: 2}
        await store.create(MailboxName(b"user.ana.Ours"), "default")
        await store.subscribe("ana", MailboxName(b"user.ana.Ours"), True)
        await store.subscribe("ana", SUB, False)
        await store.rename(MailboxName(b"user.ana.&AOQ-b"), MailboxName(b"user.ana.Neu"))
    again = dovecot.say(
        "STATUS INBOX (UIDVALIDITY UIDNEXT)",
        'LIST "" *',
        'LSUB "" *',
        "SELECT INBOX",
        "UID FETCH 5 (RFC822.SIZE BODY[])",
        "SELECT Sub/Folder",
        "FETCH 2 (UID BODY[])",
    )
    assert numbers_in(again, "INBOX") == (numbers_in(said, "INBOX")[0], 6)
    assert fetched(dovecot.say("EXAMINE INBOX", "UID FETCH 1:* FLAGS")) == {
        3: {"work", "\\Flagged", "more"},
        4: {"\\Answered"},
        5: {"\\Seen", "fresh"},
    }
    assert new.decode() in again and f"RFC822.SIZE {len(new)} " in again
    listed = set(re.findall(r'\* LIST \([^)]*\) "/" (\S+)', again))
    assert listed == {"INBOX", "Sub", "Sub/Folder", "Neu", "Ours"}
    assert set(re.findall(r'\* LSUB \([^)]*\) "/" (\S+)', again)) >= {"INBOX", "Ours"}
    assert "FETCH (UID 2 " in again and ONE.decode() in again


async def test_what_dovecot_does_meanwhile_is_noticed(tmp_path: Path) -> None:
    dovecot = Dovecot(tmp_path)
    filled_by(dovecot)

    async with stored(tmp_path) as store:
        heard: list[str] = []

        class Ear:
            def mailbox_changed(self, mailbox_id: str) -> None:
                heard.append(mailbox_id)

        store.watch(Ear())
        inbox = await store.open(INBOX, "ana")
        since = (await inbox.status()).highest_modseq
        for turn in range(3):
            first = await append(store, inbox, ONE)
            await asyncio.to_thread(
                dovecot.say,
                "SELECT INBOX",
                "UID STORE 3 -FLAGS (work)" if turn else "UID STORE 3 +FLAGS (\\Seen other)",
                ("APPEND INBOX (\\Flagged)", b"Subject: %d\r\n\r\nfrom Dovecot\r\n" % turn),
                f"UID STORE {first} +FLAGS (\\Deleted)",
                f"UID EXPUNGE {first}",
            )
            said = await asyncio.to_thread(dovecot.say, "EXAMINE INBOX", "UID FETCH 1:* FLAGS")
            heard.clear()
            changes = await inbox.changes(since)
            assert inbox.mailbox_id in heard
            assert changes.highest_modseq > since and Uid(first + 1) in {
                row.uid for row in changes.changed
            }
            assert first in (await inbox.changes(ModSeq(since))).vanished
            assert await flags_in(inbox) == fetched(said)
            status = await inbox.status()
            assert status.messages == len(await inbox.uids()) == len(fetched(said))


def by_hand(folder: Path) -> Path:
    tree = folder / "mail" / "ana" / "Maildir"
    for name in ("cur", "new", "tmp"):
        (tree / name).mkdir(parents=True)
    return tree


async def test_a_tree_of_courier_is_taken_over(tmp_path: Path) -> None:
    tree = by_hand(tmp_path)
    (tree / "cur" / "100.M1P1.host,S=9:2,S").write_bytes(b"A: b\n\nc\nd")
    (tree / "cur" / "90.M1P1.host:2,RT").write_bytes(b"A: b\n\n2\n")
    (tree / "new" / "110.M1P1.host").write_bytes(b"A: b\r\n\r\nnew\r\n")
    (tree / "courierimapuiddb").write_text("1 1234567 12\n7 90.M1P1.host\n11 100.M1P1.host,S=9\n")
    (tree / "courierimapsubscribed").write_text("INBOX\nINBOX.Sub.Folder\n")
    for name in ("cur", "new", "tmp"):
        (tree / ".Sub.Folder" / name).mkdir(parents=True)

    async with stored(tmp_path) as store:
        assert {one.name for one in await store.mailboxes()} == {INBOX, SUB}
        assert set(await store.subscriptions("ana")) == {INBOX, SUB}
        await store.subscribe("ana", SUB, False)
        inbox = await store.open(INBOX, "ana")
        status = await inbox.status()
        assert (status.uid_validity, status.uid_next, status.unseen) == (1234567, 13, 2)
        assert await flags_in(inbox) == {7: {"\\Answered", "\\Deleted"}, 11: {"\\Seen"}, 12: set()}
        assert bytes(await inbox.octets(Uid(11))) == b"A: b\r\n\r\nc\r\nd"
        assert bytes(await inbox.octets(Uid(12))) == b"A: b\r\n\r\nnew\r\n"
        assert status.size == sum(row.size for row in await inbox.messages()) == 12 + 11 + 13
    assert (tree / "courierimapsubscribed").read_text() == "INBOX\n"


async def test_files_that_come_go_and_are_renamed_are_noticed(tmp_path: Path) -> None:
    tree = by_hand(tmp_path)

    async with stored(tmp_path) as store:
        inbox = await store.open(INBOX, "ana")
        assert (await inbox.status()).messages == 0
        (tree / "new" / "1.a").write_bytes(ONE)
        (tree / "cur" / "2.b:2,F").write_bytes(ONE)
        (tree / "tmp" / "3.c").write_bytes(ONE)
        assert await flags_in(inbox) == {1: set(), 2: {"\\Flagged"}}
        since = (await inbox.status()).highest_modseq
        (tree / "new" / "1.a").rename(tree / "cur" / "1.a:2,S")
        (tree / "cur" / "2.b:2,F").unlink()
        changes = await inbox.changes(since)
        assert [(row.uid, row.flags) for row in changes.changed] == [
            (Uid(1), frozenset({"\\Seen"}))
        ]
        assert list(changes.vanished) == [2]
        since = changes.highest_modseq
        (tree / "cur" / "1.a:2,S").rename(tree / "cur" / "1.a:2,SPz")  # letters nobody explained
        assert not (await inbox.changes(since)).changed
        await inbox.change_flags([Uid(1)], FlagChange.ADD, frozenset({"\\Answered"}))
        assert (tree / "cur" / "1.a:2,PRSz").exists()
        # a clock's tick may hide a change that follows at once: it is looked at again
        before = time.time()
        (tree / "cur" / "4.d:2,").write_bytes(ONE)
        while len(await inbox.uids()) < 2:
            assert time.time() < before + 60


async def test_folders_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    tree = by_hand(tmp_path)

    async with stored(tmp_path) as store:
        assert [one.name for one in await store.mailboxes()] == [INBOX]
        with pytest.raises(Refusal):
            await store.open(SUB, "ana")
        for name in ("cur", "new", "tmp"):
            (tree / ".Sub.Folder" / name).mkdir(parents=True)
        sub = await store.open(SUB, "ana")
        await append(store, sub, ONE)
        validity = (await sub.status()).uid_validity
        (tree / ".Sub.Folder").rename(tree / ".Other")
        with pytest.raises(Refusal) as refused:
            await sub.status()
        assert refused.value.code is Code.NONEXISTENT
        other = await store.open(MailboxName(b"user.ana.Other"), "ana")
        assert (await other.status()).uid_validity == validity
        assert list(await other.uids()) == [1]
        with pytest.raises(Refusal):
            await store.open(SUB, "ana")
        again = await store.create(SUB, "default")
        assert again.uid_validity > validity


async def test_a_message_whose_file_is_renamed_just_while_it_is_opened_is_there(
    tmp_path: Path,
) -> None:
    tree = by_hand(tmp_path)

    async with stored(tmp_path) as store:
        inbox = await store.open(INBOX, "ana")
        uid = await append(store, inbox, ONE)
        real, renamed = inbox.tree.locate, 0

        def locate(folder: bytes, file: str) -> bytes | None:
            """Others change a flag when the path is known, and before it is opened."""
            nonlocal renamed
            path = real(folder, file)
            if path is not None and renamed < 3:
                renamed += 1
                base = os.path.basename(path).partition(b":")[0].decode()
                os.rename(path, tree / "cur" / f"{base}:2,{'FRS'[:renamed]}")
            return path

        inbox.tree.locate = locate  # type: ignore[method-assign]
        assert bytes(await inbox.octets(uid)) == ONE
        assert renamed == 3


async def test_a_lost_index_costs_no_uid_and_no_flag(tmp_path: Path) -> None:
    odd = b"Subject: odd\n\nbare line ends\r\n and others\n"
    kept: list[object] = []

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        inbox = await store.open(INBOX, "ana")
        for number in range(5):
            await append(store, inbox, ONE, frozenset({"\\Seen", f"word{number}"}))
        await inbox.expunge([Uid(2), Uid(5)])
        assert bytes(await inbox.octets(await append(store, inbox, odd))) == odd
        kept.extend([await flags_in(inbox), (await inbox.status()).uid_validity])
    for file in (tmp_path / "mail/ana/Maildir").glob("murder-index.db*"):
        file.unlink()
    async with stored(tmp_path) as store:
        inbox = await store.open(INBOX, "ana")
        assert [await flags_in(inbox), (await inbox.status()).uid_validity] == kept
        assert (await inbox.status()).uid_next == 7


async def test_a_newer_index_is_refused_with_a_sentence(tmp_path: Path) -> None:
    import sqlite3

    by_hand(tmp_path)
    async with stored(tmp_path) as store:
        await store.open(INBOX, "ana")
    with sqlite3.connect(tmp_path / "mail/ana/Maildir/murder-index.db") as db:
        db.execute("UPDATE meta SET value=99 WHERE key='maildir'")
    db.close()
    with pytest.raises(Refusal, match="has maildir format 99"):
        async with stored(tmp_path) as store:
            await store.open(INBOX, "ana")


async def test_where_users_are_is_a_template_that_is_read_both_ways(tmp_path: Path) -> None:
    ana = MailboxName(b"example.org!user.ana^b")

    async def both(settings: Settings) -> None:
        store = MaildirStore(settings, tmp_path)
        await store.start()
        try:
            if not await store.mailboxes():
                await store.create(ana, "default")
            assert [one.name for one in await store.mailboxes()] == [ana]
        finally:
            await store.stop()

    for _ in range(2):
        await both(Settings(users="v/%d/%n/Maildir"))
    assert (tmp_path / "v/example.org/ana.b/Maildir/cur").is_dir()


@pytest.mark.parametrize("name", [b"user./etc", b"user.^^", b"user.ana.a/b"])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes) -> None:
    async with stored(tmp_path) as store:
        with pytest.raises(Refusal) as refused:
            await store.create(MailboxName(name), "default")
        assert refused.value.code is Code.CANNOT


def test_subscriptions_keep_the_form_of_their_file(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    (tmp_path / "subscriptions").write_bytes(b"INBOX\nSub.Folder\n")
    assert read_subscriptions(folder) == ({b"INBOX", b"Sub.Folder"}, b"subscriptions")
    write_subscriptions(folder, {b"INBOX", b"A.B"}, b"subscriptions")
    assert (tmp_path / "subscriptions").read_bytes() == b"V\t2\n\nA\tB\nINBOX\n"
    assert read_subscriptions(folder) == ({b"INBOX", b"A.B"}, b"subscriptions")


async def test_a_hostile_tree_shows_nothing_of_others_and_holds_nobody_up(tmp_path: Path) -> None:
    """Links, pipes and what cannot be read, in the place of messages, of folders and of the files beside them."""
    tree, other = tmp_path / "mail/ana/Maildir", tmp_path / "mail/bob/Maildir"
    for folder in (tree, other, tree / ".Sub.Folder", tree / ".Linked"):
        for place in ("cur", "new", "tmp"):
            (folder / place).mkdir(parents=True)
    (tree / "cur" / "1.mine:2,S").write_bytes(ONE)
    (other / "cur" / "2.secret:2,S").write_bytes(ONE.replace(b"hello", b"secret"))
    os.symlink(other / "cur" / "2.secret:2,S", tree / "cur" / "2.secret:2,S")
    os.symlink(other, tree / ".Stolen")
    (tree / ".Linked" / "cur").rmdir()
    os.symlink(other / "cur", tree / ".Linked" / "cur")
    os.mkfifo(tree / "new" / "3.pipe")
    (tree / "new" / "4.folder").mkdir()
    os.mkfifo(tree / "dovecot-uidlist")
    os.mkfifo(tree / "dovecot-keywords")
    os.symlink(other / "cur" / "2.secret:2,S", tree / "subscriptions")
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    for name in ("dovecot-uidlist", "dovecot-uidlist.lock", "dovecot-keywords", "subscriptions"):
        os.symlink(victim, tree / f"{name}.murder-{os.getpid()}")
        os.symlink(victim, tree / f"{name}.{os.getpid()}")
    if os.geteuid() == 0:  # else nothing here is somebody else's
        for path in (other, *other.rglob("*")):
            os.chown(path, NOBODY, NOBODY)

    async with stored(tmp_path) as store:
        box = await store.open(INBOX, "ana")
        (row,) = await box.messages()
        assert bytes(await box.octets(row.uid)) == ONE
        await append(store, box, ONE, frozenset({"$Work"}))
        assert len(await box.messages()) == 2
        box.close()
        if os.geteuid() == 0:
            shown = {mailbox.name for mailbox in await store.mailboxes()}
            assert shown == {INBOX, SUB, MailboxName(b"user.bob")}
            for hidden in (b"user.ana.Stolen", b"user.ana.Linked"):
                with pytest.raises(Refusal):
                    await store.open(MailboxName(hidden), "ana")
        assert victim.read_bytes() == b"kept"


async def test_a_file_of_somebody_else_that_is_cut_short_ends_nothing(tmp_path: Path) -> None:
    """A map of it would end the process when it is read."""
    if os.geteuid() != 0:
        cannot_run("only root can give a file away")
    tree = tmp_path / "mail/ana/Maildir"
    for place in ("cur", "new", "tmp"):
        (tree / place).mkdir(parents=True)
    file = tree / "cur" / f"1.mine,S={len(ONE)},W={len(ONE)}:2,S"
    file.write_bytes(ONE)
    os.chown(file, NOBODY, NOBODY)

    async with stored(tmp_path) as store:
        box = await store.open(INBOX, "ana")
        (row,) = await box.messages()
        octets = await box.octets(row.uid)
        os.truncate(file, 0)
        assert bytes(octets) == ONE
        box.close()


def maildir(folder: Path) -> Path:
    for part in ("cur", "new", "tmp"):
        (folder / part).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("place", ["cur", "new"])
async def test_what_is_no_message_in_a_folder_is_passed_over_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Pipes, links, folders, devices; and names are taken one by one: `os.listdir` holds all threads until its end."""
    tree = maildir(tmp_path / "mail/ana/Maildir")
    folder = tree / place
    os.mkfifo(folder / "1.pipe.h")
    (folder / "2.link.h").symlink_to("/etc/passwd")
    (folder / "3.zero.h").symlink_to("/dev/zero")
    (folder / "4.folder.h").mkdir()
    (folder / "5.good.h").write_bytes(ONE)
    os.mkfifo(tree / "dovecot-uidlist")
    os.mkfifo(tree / "dovecot-keywords")
    (tree / "subscriptions").symlink_to("/etc/passwd")

    def never(path: object) -> list[bytes]:
        raise AssertionError(f"{path!r} is listed in one step")

    async with stored(tmp_path) as store:
        monkeypatch.setattr(os, "listdir", never)
        box = await store.open(INBOX, "ana")
        (row,) = await box.messages()
        assert bytes(await box.octets(row.uid)) == ONE
        box.close()
        monkeypatch.undo()


async def test_a_folder_that_somebody_has_half_made_with_a_pipe_in_it_holds_nobody(
    tmp_path: Path,
) -> None:
    tree = maildir(tmp_path / "mail/ana/Maildir")
    (tree / ".Sub.Folder").mkdir()
    os.mkfifo(tree / ".Sub.Folder" / "maildirfolder")
    async with stored(tmp_path) as store:
        (await store.open(INBOX, "ana")).close()
        async with asyncio.timeout(10):
            await store.create(SUB, "", "m1")
            box = await store.open(SUB, "ana")
        assert await append(store, box, ONE) == 1
        box.close()


def test_a_uid_list_is_read_line_by_line_and_wild_numbers_are_none(tmp_path: Path) -> None:
    lines = b"".join(b"%d :%d.M1P1.host\n" % (one, one) for one in range(1, 20_000))
    wild = b"%b :wild.h\n-1 :minus.h\n\n%b\n" % (b"9" * 5000, b"x" * 100_000)
    (tmp_path / "dovecot-uidlist").write_bytes(b"3 V7 N3 Gabc\n" + lines + wild)
    tracemalloc.start()
    found = read_uidlist(tmp_path.as_posix().encode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None and (found.validity, found.next, found.guid) == (7, 20_000, "abc")
    assert found.lines == 19_999 and (7, "7.M1P1.host") in found.rows()
    assert peak < 12 * len(lines)
    for header in (b"3 V%b N1" % (b"9" * 5000), b"1 %b 2" % (b"9" * 5000), b"3 " + b"V" * 100_000):
        (tmp_path / "dovecot-uidlist").write_bytes(header + b"\n1 :a.h\n")
        assert read_uidlist(tmp_path.as_posix().encode()) is None


def renamed_by_another(path: Path, letters: str) -> Path:
    """Another program gives the message other flags."""
    base = path.name.partition(":")[0]
    return path.rename(path.parent.parent / "cur" / f"{base}:2,{letters}")


@pytest.mark.parametrize("change", ["expunge", "move"])
async def test_what_is_renamed_just_while_it_is_removed_does_not_come_back(
    change: str, tmp_path: Path
) -> None:
    tree = by_hand(tmp_path)
    async with stored(tmp_path) as store:
        await store.create(SUB, "default")
        box, other = await store.open(INBOX, "ana"), await store.open(SUB, "ana")
        uid = await append(store, box, ONE)
        uids = await box.uids()
        real, letters = box.tree.locate, ["R", "RS", "FR"]

        def locate(folder: bytes, file: str) -> bytes | None:
            path = real(folder, file)
            if path is not None and b"/Sub" not in path and letters:
                renamed_by_another(Path(os.fsdecode(path)), letters.pop())
            return path

        box.tree.locate = locate  # type: ignore[method-assign]
        if change == "expunge":
            await box.expunge([uid])
        else:
            await box.move([uid], other)
        assert not letters
        assert list(await box.uids()) == [one for one in uids if one != uid]
        assert len([*(tree / "cur").iterdir(), *(tree / "new").iterdir()]) == len(uids) - 1


async def test_a_flag_that_was_set_stays_where_the_file_is_renamed_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        box = await store.open(INBOX, "ana")
        uid = await append(store, box, ONE)
        tree, act = tmp_path / "mail/ana/Maildir", Tree.perform
        renamed: list[Path] = []

        def race(itself: Tree, db: sqlite3.Connection) -> dict[int, bytes]:
            (due,) = db.execute("SELECT count(*) FROM todo WHERE new GLOB '*:2,F'").fetchone()
            if due and not renamed:
                (file,) = (tree / "new").iterdir()
                renamed.append(renamed_by_another(file, "R"))
            return act(itself, db)

        monkeypatch.setattr(Tree, "perform", race)
        await box.change_flags([uid], FlagChange.ADD, frozenset({"\\Flagged"}))
        (file,) = (tree / "cur").iterdir()
        assert renamed and file.name.endswith(":2,FR")
