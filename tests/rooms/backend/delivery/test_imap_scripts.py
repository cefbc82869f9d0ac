"""Scripts that see what clients do by IMAP (RFC 6785): which, when, as whom, and what they do."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from murder.config.sieve import ImapScriptRule, ProgramConfig
from murder.model.message import Uid
from murder.model.name import MailboxName, inbox_of
from murder.roles.backend.records import caused
from murder.roles.backend.records.annotations import SERVER, SHARED
from murder.roles.backend.records.caused import Caused
from murder.roles.backend.records.deliveries import Deliveries
from murder.roles.backend.scripts.rules import SCRIPT_ENTRY
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.backend.delivery.test_site_scripts import COUNTING, program, written
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store, subjects_of

MESSAGE = b"Subject: %b\r\nMessage-ID: <%b@example.org>\r\n\r\nHello\r\n"


class Client:
    """ana's, at a backend with her mailboxes Junk and Box."""

    def __init__(self, one: Running, peer: Peer) -> None:
        self.one = one
        self.peer = peer

    async def append(self, mailbox: str, subject: str, flags: str = "") -> None:
        octets = MESSAGE % (subject.encode(), subject.encode())
        line = f"a APPEND {mailbox} ({flags}) {{{len(octets)}+}}\r\n".encode()
        answer = await self.peer.tagged(line + octets + b"\r\n")
        assert answer.startswith(b"a OK"), answer

    async def do(self, line: str) -> None:
        self.peer.send(b"d " + line.encode() + b"\r\n")
        while not (answer := await self.peer.line()).startswith(b"d "):
            pass
        assert answer.startswith(b"d OK"), answer

    async def settled(self) -> None:
        """All that was put down has been seen to."""
        folder = self.one.role._config.node.data / "backend/deliveries"

        def is_empty() -> bool:
            with sqlite3.connect(folder / "deliveries.db") as db:
                return not db.execute("SELECT count(*) FROM caused").fetchone()[0]

        await until_soon(is_empty, "scripts have seen all")

    async def messages(self, folder: str = "") -> list[tuple[str, list[str]]]:
        return await subjects_of(self.one.backend, "ana", folder)

    async def annotate(self, value: bytes | None, mailbox: MailboxName | None = None) -> None:
        name = inbox_of("ana") if mailbox is None else mailbox
        await self.one.backend.annotations.change(name, {SHARED: {SCRIPT_ENTRY: value}})


@asynccontextmanager
async def client_with(folder: Path, script: bytes = b"", **sections: Any) -> AsyncIterator[Client]:
    config = replace(config_in(folder), **sections)
    async with running_backend(folder, lambda: spool_store(folder), config=config) as one:
        for name in ("Junk", "Box"):
            mailbox = MailboxName(inbox_of("ana") + b"." + name.encode())
            if one.backend.mailboxes.find(mailbox) is None:
                await one.backend.announcer.create(mailbox, b"ana\tlrswipkxtecda\t")
        if script:
            await one.backend.scripts.put("ana", "imap", script)
        peer = await Peer.at(*one.address)
        await peer.line()
        assert (await peer.tagged(b"l LOGIN ana secret\r\n")).startswith(b"l OK")
        client = Client(one, peer)
        if script:
            await client.annotate(b"imap")
        yield client


TELLING = b"""require ["imapsieve", "environment", "variables", "imap4flags", "fileinto"];
if environment :matches "imap.cause" "*" { set "cause" "${1}"; }
if environment :matches "imap.changedflags" "*" { set "changed" "${1}"; }
if environment :matches "imap.user" "*" { set "user" "${1}"; }
if environment :matches "imap.mailbox" "*" { set "mailbox" "${1}"; }
if not string "${mailbox}" "INBOX" { stop; }
if string "${cause}" "FLAG" {
    if string "${changed}" "$ask" { addflag "$${user}-was-asked"; }
} else {
    addflag "$${cause}";
}
"""


async def test_a_users_script_sees_what_comes_and_what_flags_change(tmp_path: Path) -> None:
    async with client_with(tmp_path, TELLING) as client:
        await client.append("INBOX", "one", "\\Seen")
        await client.append("INBOX/Box", "two")
        await client.settled()
        assert await client.messages() == [("one", ["$APPEND", "\\Seen"])]
        await client.do("SELECT INBOX/Box")
        await client.do("COPY 1 INBOX")
        await client.do("MOVE 1 INBOX")
        await client.settled()
        assert await client.messages() == [
            ("one", ["$APPEND", "\\Seen"]),
            ("two", ["$COPY"]),
            ("two", ["$COPY"]),
        ]
        await client.do("SELECT INBOX")
        await client.do("STORE 2 +FLAGS ($ask)")
        await client.do("STORE 2 +FLAGS ($ask)")  # nothing changes
        await client.do("STORE 3 +FLAGS.SILENT ($other)")
        await client.settled()
        assert (await client.messages())[1:] == [
            ("two", ["$COPY", "$ana-was-asked", "$ask"]),
            ("two", ["$COPY", "$other"]),
        ]


async def test_what_a_script_does_not_keep_is_deleted_where_it_lies(tmp_path: Path) -> None:
    script = b"""require ["imapsieve", "fileinto", "editheader", "vacation", "imap4flags"];
    if header "subject" "file" { fileinto "INBOX/Box"; }
    if header "subject" "here" { fileinto :flags "$here" "INBOX"; }
    if header "subject" "drop" { discard; }
    if header "subject" "edit" { deleteheader "subject"; addheader "Subject" "edited"; }
    if header "subject" "away" { vacation "not for what is no mail"; }"""
    async with client_with(tmp_path, script) as client:
        for subject in ("file", "here", "drop", "edit", "away"):
            await client.append("INBOX", subject, "$mine")
            await client.settled()
        assert await client.messages("Box") == [("file", ["$mine"])]
        assert await client.messages() == [
            ("file", ["$mine", "\\Deleted"]),
            ("here", ["$mine"]),
            ("drop", ["$mine", "\\Deleted"]),
            ("edited", ["$mine"]),
            ("away", ["$mine"]),
        ]


async def test_what_a_script_makes_of_a_message_stands_in_the_mail_log(tmp_path: Path) -> None:
    script = b"""require ["imapsieve", "fileinto", "editheader", "copy", "environment"];
    if environment "imap.mailbox" "INBOX" {
        deleteheader "subject"; addheader "Subject" "edited"; fileinto :copy "INBOX/Box"; keep; }"""
    log = replace(config_in(tmp_path).log, mail="full")
    async with client_with(tmp_path, script, log=log) as client:
        await client.append("INBOX", "first")
        await client.settled()
        assert await client.messages() == [("edited", [])] == await client.messages("Box")
    (file,) = tmp_path.rglob("mail-backend-0*")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    keys = ("event", "protocol", "user", "cause", "mailbox", "message_id")
    told = [tuple(line.get(key) for key in keys) for line in lines]
    by_script, message_id = ("imapsieve", "ana", "APPEND"), "<first@example.org>"
    assert told == [
        ("message.appended", "imap", "ana", None, "user.ana", message_id),
        ("message.appended", *by_script, "user.ana.Box", message_id),
        ("message.appended", *by_script, "user.ana", message_id),
        ("message.expunged", *by_script, "user.ana", None),
    ]
    assert lines[3]["messages"] == lines[0]["messages"] != lines[2]["messages"]


async def test_a_mailboxs_annotation_counts_before_the_servers_and_may_say_none(
    tmp_path: Path,
) -> None:
    script = b'require ["imapsieve", "imap4flags"]; addflag "$seen-it";'
    async with client_with(tmp_path, script) as client:
        await client.annotate(None)
        await client.append("INBOX", "one")
        await client.annotate(b"imap", SERVER)
        await client.append("INBOX", "two")
        await client.annotate(b"")
        await client.append("INBOX", "three")
        await client.annotate(b"no-such-script")
        await client.append("INBOX", "four")
        await client.settled()
        assert [flags for _, flags in await client.messages()] == [[], ["$seen-it"], [], []]


def learning(folder: Path, told: Path) -> dict[str, Any]:
    """A spam filter learns of what is moved into Junk, and out of it."""
    command = (*program(folder, COUNTING), str(told))
    rules = {}
    for word, mailbox, origin in (("spam", "INBOX/Junk", "*"), ("ham", "*", "INBOX/Junk")):
        text = f'require ["vnd.dovecot.pipe", "copy", "imapsieve"]; pipe :copy "learn" "{word}";'
        script = written(folder, f"{word}.sieve", text)
        rules[word] = ImapScriptRule(script, mailbox, "", origin, ("COPY",))
    return {"programs": {"learn": ProgramConfig(command)}, "imap": rules}


async def test_a_spam_filter_learns_of_what_is_moved_into_junk_and_out_of_it(
    tmp_path: Path,
) -> None:
    told = tmp_path / "told"
    async with client_with(tmp_path, **learning(tmp_path, told)) as client:
        await client.append("INBOX/Junk", "appended")
        await client.append("INBOX", "one")
        await client.do("SELECT INBOX")
        for _ in range(2):  # it is learned again
            await client.do("MOVE 1 INBOX/Junk")
            await client.settled()
            await client.do("SELECT INBOX/Junk")
            await client.do("UID MOVE 2:* INBOX")
            await client.settled()
            await client.do("SELECT INBOX")
        words = [line.split()[:2] for line in told.read_text().splitlines()]
        assert words == [["ana", "spam"], ["ana", "ham"]] * 2
        assert await client.messages() == [("one", [])]


async def test_what_is_put_down_is_seen_after_a_crash_and_each_message_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = b'require ["imapsieve", "fileinto", "copy"]; fileinto :copy "INBOX/Box";'
    monkeypatch.setattr("murder.roles.backend.scripts.worklist.AT_ONCE", 1)
    advanced: list[int] = []
    really = caused.advance

    def dies(db: sqlite3.Connection, id_: int, done: int) -> None:
        really(db, id_, done)
        advanced.append(done)
        if len(advanced) == 2:
            raise sqlite3.OperationalError("disk I/O error")

    async with client_with(tmp_path, script) as client:
        monkeypatch.setattr(caused, "advance", dies)
        await client.annotate(None)
        for number in range(3):
            await client.append("INBOX", str(number))
        await client.annotate(b"imap", MailboxName(inbox_of("ana") + b".Junk"))
        await client.do("SELECT INBOX")
        await client.do("COPY 1:3 INBOX/Junk")
        await until_soon(lambda: len(advanced) == 2, "it stops in the middle")
        monkeypatch.setattr("murder.roles.backend.scripts.worklist.POLL_S", 3600.0)
    monkeypatch.undo()
    async with client_with(tmp_path) as client:
        await client.settled()
        assert [subject for subject, _ in await client.messages("Box")] == ["0", "1", "2"]


async def test_programs_that_fail_are_asked_again_and_nothing_else_is_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.roles.backend.scripts.by_imap.RETRY_S", 0.0)
    text = """
import os, sys
sys.stdin.buffer.read()
path = sys.argv[1]
with open(path, "a") as file: file.write("x")
sys.exit(os.path.getsize(path) < 3)
"""
    told = tmp_path / "told"
    programs = {"try": ProgramConfig((*program(tmp_path, text), str(told)), by="users")}
    script = b"""require ["vnd.dovecot.pipe", "imapsieve"]; pipe "try";"""
    async with client_with(tmp_path, script, programs=programs) as client:
        await client.append("INBOX", "one")
        await client.settled()
        assert told.read_text() == "xxx"
        assert await client.messages() == [("one", ["\\Deleted"])]


async def test_who_has_done_much_does_not_hold_up_the_others(tmp_path: Path) -> None:
    deliveries = Deliveries(tmp_path)
    try:
        uids = [Uid(number) for number in range(1, 4)]
        rows = [Caused(user, inbox_of(user), "id", uids, "COPY") for user in ("ana", "ana", "bob")]
        assert await deliveries.put_caused(rows) == 3
        first = await deliveries.due_caused(10)
        assert [one.user for one in first] == ["ana", "bob"]
        await deliveries.advance_caused(first[0], 1)  # its turn is over
        second = await deliveries.due_caused(10)
        assert [(one.user, one.done) for one in second] == [("bob", 0), ("ana", 1)]
        await deliveries.end_caused(second[1])
        assert [one.user for one in await deliveries.due_caused(10)] == ["ana", "bob"]
    finally:
        deliveries.close()


async def test_a_long_row_goes_on_after_others_had_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.roles.backend.scripts.by_imap.TURN_S", 0.0)
    script = b'require ["imapsieve", "imap4flags"]; addflag "$seen-it";'
    async with client_with(tmp_path, script) as client:
        for number in range(3):
            await client.append("INBOX/Box", str(number))
        await client.do("SELECT INBOX/Box")
        await client.do("COPY 1:3 INBOX")
        await client.settled()
        assert [flags for _, flags in await client.messages()] == [["$seen-it"]] * 3


async def test_one_users_rows_take_nobodys_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caused, "MAX_ROWS", 5)
    monkeypatch.setattr(caused, "MAX_ROWS_OF_USER", 3)
    deliveries = Deliveries(tmp_path)
    try:
        rows = {
            user: [Caused(user, inbox_of(user), "id", [Uid(1)], "COPY")] for user in ("ana", "bob")
        }
        assert await deliveries.put_caused(rows["ana"] * 2) == 2
        assert await deliveries.put_caused(rows["ana"] * 2) == 1
        assert await deliveries.put_caused(rows["bob"] * 3) == 2  # all that is left
        first = await deliveries.due_caused(10)
        await deliveries.end_caused(first[0])
        assert await deliveries.put_caused([*rows["ana"] * 2, *rows["bob"]]) == 1
    finally:
        deliveries.close()
