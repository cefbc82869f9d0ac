"""Mail that arrives, and its recipient's script: where it is, who is told what, and what a crash leaves."""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from murder.config.sections import SubmissionConfig
from murder.config.value import parse_endpoint
from murder.errors import Code, Refusal
from murder.model.name import MailboxName, inbox_of
from murder.model.protocol import LMTP
from murder.roles.backend.records.deliveries import FAILED, SENT, Deliveries
from murder.roles.backend.scripts.carry_out import Delivery
from tests.kit.listening import listening
from tests.kit.waiting import until_soon
from tests.rooms.backend.server import (
    Parts,
    Running,
    config_in,
    running_backend,
    spool_store,
    subjects_of,
)

MESSAGE = (
    b"From: sender@example.org\r\nSubject: %b\r\nMessage-ID: <%b@example.org>\r\n\r\nHello\r\n"
)
TWO_COPIES = b'require ["fileinto","copy"]; fileinto :copy "INBOX/A"; fileinto :copy "INBOX/B";'


@asynccontextmanager
async def delivering(
    folder: Path,
    script: bytes = b"",
    user: str = "ana",
    parts: Parts | None = None,
    **sections: Any,
) -> AsyncIterator["Lmtp"]:
    config = replace(config_in(folder), **sections)
    parts = parts or Parts(lambda: spool_store(folder))
    async with running_backend(folder, config=config, parts=parts) as one:
        if script:
            await one.backend.scripts.put(user, "main", script)
            await one.backend.scripts.activate(user, "main")
        async with Lmtp.at(one) as client:
            yield client


class Lmtp:
    """Delivers one message after the other."""

    def __init__(self, one: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.one = one
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def at(cls, one: Running) -> AsyncIterator["Lmtp"]:
        async with listening(one.role.services()[LMTP]) as lmtp:
            reader, writer = await asyncio.open_connection(*lmtp.address)
            client = cls(one, reader, writer)
            await client.said(b"LHLO me")
            try:
                yield client
            finally:
                writer.close()

    async def said(self, line: bytes = b"") -> bytes:
        if line:
            self._writer.write(line + b"\r\n")
        while True:
            answer = await self._reader.readline()
            if answer[3:4] != b"-" and not answer.startswith(b"220"):
                return answer

    async def deliver(
        self,
        subject: str,
        *recipients: str,
        message: bytes = b"",
        sender: str = "sender@example.org",
    ) -> list[bytes]:
        await self.said(b"MAIL FROM:<" + sender.encode() + b">")
        for recipient in recipients or ("ana",):
            await self.said(b"RCPT TO:<" + recipient.encode() + b">")
        await self.said(b"DATA")
        word = subject.replace(" ", "-").encode()
        self._writer.write((message or MESSAGE % (subject.encode(), word)) + b".\r\n")
        return [await self.said() for _ in recipients or ("ana",)]

    async def subjects(self, folder: str = "", user: str = "ana") -> list[tuple[str, list[str]]]:
        """Of all messages of a mailbox, each with its flags."""
        return await subjects_of(self.one.backend, user, folder)

    async def create(self, *folders: str) -> None:
        for folder in folders:
            name = MailboxName(inbox_of("ana") + b"." + folder.encode())
            await self.one.backend.announcer.create(name, b"ana\tlrswipkxtecda\tanyone\tp\t")

    def states(self) -> Sequence[int]:
        """Of what is to be sent: PENDING, SENT or FAILED."""
        folder = self.one.role._config.node.data / "backend/deliveries"
        with sqlite3.connect(folder / "deliveries.db") as db:
            return [state for (state,) in db.execute("SELECT state FROM outgoing ORDER BY id")]

    def outgoing(self) -> Sequence[tuple[str, str, bytes]]:
        """Sender, recipients and octets of all that is to be sent."""
        folder = self.one.role._config.node.data / "backend/deliveries"
        with sqlite3.connect(folder / "deliveries.db") as db:
            rows = db.execute("SELECT sender, recipients, octets FROM outgoing ORDER BY id")
            return list(rows)


SORT = b"""require ["fileinto", "imap4flags", "copy"];
if header :contains "subject" "list" { fileinto "INBOX/Lists"; stop; }
if header :contains "subject" "spam" { discard; stop; }
if header :contains "subject" "both" { fileinto :copy :flags "\\\\Flagged" "INBOX/Lists"; setflag "\\\\Seen"; }
if header :contains "subject" "none" { fileinto "INBOX/None"; }
if header :contains "subject" "reject" { discard; }
if header :contains "subject" "twice" { fileinto :copy "INBOX"; fileinto :copy "INBOX/Lists"; }
if header :contains "subject" "hidden" { fileinto "INBOX/#sieve"; }
"""


async def test_a_script_sorts_what_arrives(tmp_path: Path) -> None:
    async with delivering(tmp_path, SORT) as client:
        await client.create("Lists")
        for subject in ("a list", "a spam", "both", "plain", "none", "twice", "hidden"):
            (answer,) = await client.deliver(subject)
            assert answer.startswith(b"250 "), answer
        assert await client.subjects("Lists") == [
            ("a list", []),
            ("both", ["\\Flagged"]),
            ("twice", []),
        ]
        assert await client.subjects() == [
            ("both", ["\\Seen"]),
            ("plain", []),
            ("none", []),
            ("twice", []),
            ("hidden", []),
        ]


async def test_what_is_behind_the_plus_is_kept_there_and_others_have_no_script(
    tmp_path: Path,
) -> None:
    async with delivering(tmp_path, b'require "imap4flags"; setflag "$Seen-it";') as client:
        await client.create("Work")
        await client.deliver("to work", "ana+Work", "bob", "ana")
        assert await client.subjects("Work") == [("to work", ["$Seen-it"])]
        assert await client.subjects() == [("to work", ["$Seen-it"])]
        assert await client.subjects(user="bob") == [("to work", [])]


async def test_the_mail_log_says_what_a_script_decided(tmp_path: Path) -> None:
    script = b"""require ["fileinto", "reject"];
if header "subject" "toss" { discard; stop; }
if header "subject" "not me" { reject "no"; stop; }
if header "subject" "on" { redirect "bea@example.org"; stop; }
if header "subject" "lists" { fileinto "INBOX/Lists"; keep; }
"""
    async with delivering(tmp_path, script) as client:
        await client.create("Lists")
        for subject in ("toss", "not me", "on", "lists", "else"):
            await client.deliver(subject)
        lines = mail_lines(tmp_path)
    assert [line["filtered"] for line in lines] == [
        ["main:2 discard"],
        ["main:3 reject"],
        ["main:4 redirect bea@example.org"],
        ["main:5 fileinto INBOX/Lists", "main:5 keep"],
        ["keep"],
    ]
    assert [len(line.get("copies", ())) for line in lines] == [0, 0, 0, 2, 1]


async def test_mail_for_who_has_no_script_is_not_filtered(tmp_path: Path) -> None:
    async with delivering(tmp_path) as client:
        await client.deliver("plain")
        assert ["filtered" in line for line in mail_lines(tmp_path)] == [False]


def mail_lines(folder: Path) -> list[dict[str, Any]]:
    """In the order in which they were written."""
    (file,) = folder.rglob("mail-*")
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_script_that_fails_keeps_the_message(tmp_path: Path) -> None:
    async with delivering(
        tmp_path, b'require "regex"; if header :regex "subject" "a" {discard;}'
    ) as c:
        await c.one.backend.scripts.put("ana", "main", b"this is none")  # past ManageSieve
        assert (await c.deliver("one"))[0].startswith(b"250")
        assert await c.subjects() == [("one", [])]


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_crash_between_two_steps_and_the_senders_retry_make_each_copy_once(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0
    really = Delivery._do

    async def dies(delivery: Delivery, step: object) -> None:
        nonlocal done
        if done == at:
            raise OSError("gone")
        done += 1
        await really(delivery, step)  # type: ignore[arg-type] # passed on

    async with delivering(tmp_path, TWO_COPIES) as client:
        await client.create("A", "B")
        monkeypatch.setattr(Delivery, "_do", dies)
        (answer,) = await client.deliver("one")
        assert answer.startswith(b"4")
        monkeypatch.undo()
    async with delivering(tmp_path) as client:  # after a start
        (answer,) = await client.deliver("one")
        assert answer.startswith(b"250")
        for folder in ("", "A", "B"):
            assert await client.subjects(folder) == [("one", [])], folder
        (answer,) = await client.deliver("one")  # another one, not a retry
        assert answer.startswith(b"250")
        assert await client.subjects("A") == [("one", [])] * 2


async def deliver_and_die(
    folder: Path, monkeypatch: pytest.MonkeyPatch, subject: str, message: bytes = b""
) -> None:
    """All is done, and its sender has not heard so."""
    really = Deliveries.end

    async def dies(books: Deliveries, *given: Any) -> frozenset[bytes]:
        await really(books, *given)
        raise OSError("gone")

    async with delivering(folder, TWO_COPIES) as client:
        await client.create("A", "B")
        monkeypatch.setattr(Deliveries, "end", dies)
        assert (await client.deliver(subject, message=message))[0].startswith(b"4")
        monkeypatch.setattr(Deliveries, "close", died)
    monkeypatch.undo()


async def test_a_death_before_the_sender_hears_that_all_is_done_files_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver_and_die(tmp_path, monkeypatch, "one")
    async with delivering(tmp_path) as client:  # after a start
        for copies in (1, 2):  # the second one is no retry
            assert (await client.deliver("one"))[0].startswith(b"250")
            for folder in ("", "A", "B"):
                assert await client.subjects(folder) == [("one", [])] * copies, folder
    async with delivering(tmp_path) as client:  # one that has ended has told all of their senders
        assert (await client.deliver("one"))[0].startswith(b"250")
        assert await client.subjects("A") == [("one", [])] * 3


async def test_after_a_death_another_message_with_the_same_message_id_is_no_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What some machines send has always the same one: an alarm that had been taken was nowhere."""
    alarm = MESSAGE % (b"alarm", b"always")
    await deliver_and_die(tmp_path, monkeypatch, "alarm", message=alarm)
    async with delivering(tmp_path) as client:
        for body, copies in ((b"worse\r\n", 2), (b"", 2), (b"over\r\n", 3)):  # "": the retry
            answers = await client.deliver("alarm", message=alarm + body)
            assert answers[0].startswith(b"250")
            assert await client.subjects("A") == [("alarm", [])] * copies, body


async def test_nor_are_its_copies_taken_for_those_of_one_that_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first alarm found no room, a later one did: the first, tried again, was answered for and was nowhere."""
    alarm = MESSAGE % (b"alarm", b"always")

    async def is_full(*_: object) -> None:
        raise Refusal(Code.UNAVAILABLE, "The disk of this server is full")

    async with delivering(tmp_path, TWO_COPIES) as client:
        await client.create("A", "B")
        with monkeypatch.context() as full:
            full.setattr(Delivery, "_do", is_full)
            assert (await client.deliver("alarm", message=alarm + b"first\r\n"))[0].startswith(b"4")
        for copies, body in enumerate((b"later\r\n", b"first\r\n"), 1):
            answers = await client.deliver("alarm", message=alarm + body)
            assert answers[0].startswith(b"250")
            for folder in ("", "A", "B"):
                assert await client.subjects(folder) == [("alarm", [])] * copies, (folder, body)


def died(books: Deliveries) -> None:
    """As its process does: nothing is put in order, and the kernel takes its locks."""
    books._writer.shutdown()
    books._db.close()
    os.close(books._living._lock)


async def test_without_a_way_to_send_a_redirect_waits(tmp_path: Path) -> None:
    async with delivering(tmp_path, b'redirect "else@example.org";') as client:
        (answer,) = await client.deliver("one")
        assert answer.startswith(b"451 ") and await client.subjects() == []
        assert client.outgoing() == []


class Sink:
    """A mail server: what it has taken. It answers the first messages with these, and RCPT with those of `at_rcpt`."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.taken: list[tuple[bytes, list[bytes], bytes]] = []
        self.tries = 0
        self.at_rcpt: dict[bytes, list[bytes]] = {}
        self.hangs_up = 0  # at the end of so many messages, in place of an answer

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        sender, recipients = b"", list[bytes]()
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"MAIL":
                sender, recipients = line.split(b"<")[1].split(b">")[0], []
            elif word == b"RCPT":
                recipient = line.split(b"<")[1].split(b">")[0]
                if answers := self.at_rcpt.get(recipient):
                    writer.write(answers.pop(0) + b"\r\n")
                    continue
                recipients.append(recipient)
            elif word == b"DATA":
                writer.write(b"354 go on\r\n")
                octets = await reader.readuntil(b"\r\n.\r\n")
                self.tries += 1
                if self.hangs_up:
                    self.hangs_up -= 1
                    break
                answer = self._answers.pop(0) if self._answers else b"250 taken"
                if answer.startswith(b"2"):
                    self.taken.append((sender, recipients, octets[:-3]))
                writer.write(answer + b"\r\n")
                continue
            writer.write(b"250 ok\r\n" if word != b"QUIT" else b"221 bye\r\n")
        writer.close()


@asynccontextmanager
async def sending(
    folder: Path,
    script: bytes,
    *answers: bytes,
    sections: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[tuple["Lmtp", Sink]]:
    sink = Sink(*answers)
    server = await asyncio.start_server(sink.speak, "127.0.0.1", 0, limit=1 << 22)
    port = server.sockets[0].getsockname()[1]
    config = SubmissionConfig(server=parse_endpoint(f"127.0.0.1:{port}"), tls="none", retry_s=0.01)
    try:
        submission = replace(config, **settings)
        async with delivering(folder, script, submission=submission, **sections) as client:
            yield client, sink
    finally:
        server.close()


NOTIFY = b"""require ["enotify", "fcc", "fileinto"];
notify :from "ana@example.org" :fcc "INBOX/Told" :message "You got mail" "mailto:bob@x.example?cc=cleo@x.example";
notify :message "Again" "mailto:bob@x.example";
fileinto "INBOX/Lists";
"""


async def test_who_is_notified_gets_a_mail_once_also_when_the_sender_comes_again(
    tmp_path: Path,
) -> None:
    async with sending(tmp_path, NOTIFY) as (client, sink):
        await client.create("Lists", "Told")
        for _ in range(2):
            (answer,) = await client.deliver("one")
            assert answer.startswith(b"250"), answer
        await until_soon(lambda: sink.taken, "who is notified gets a mail")
        assert len(client.outgoing()) == 1
        ((_, recipients, octets),) = sink.taken
        assert recipients == [b"bob@x.example", b"cleo@x.example"]
        assert b"Subject: You got mail\r\n" in octets and b"auto-notified" in octets
        assert [subject for subject, _ in await client.subjects("Told")] == ["You got mail"]
        assert await client.subjects() == []


async def test_a_notification_of_a_draft_goes_out_too(tmp_path: Path) -> None:
    script = b'require "notify"; notify :message "$subject$ came" :options "bob@x.example";'
    async with sending(tmp_path, script) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: sink.taken, "who is notified gets a mail")
        ((_, recipients, octets),) = sink.taken
        assert recipients == [b"bob@x.example"] and b"one came" in octets


REDIRECT = b'require "copy"; redirect :copy "else@example.org"; redirect "two@example.net";'


async def test_what_is_redirected_goes_out_once_also_when_the_sender_comes_again(
    tmp_path: Path,
) -> None:
    async with sending(tmp_path, REDIRECT, b"451 later") as (client, sink):
        for _ in range(2):
            assert (await client.deliver("one"))[0].startswith(b"250")
        await until_soon(lambda: len(sink.taken) == 2, "both are sent")
        assert sorted(to for _, to, _ in sink.taken) == [
            [b"else@example.org"],
            [b"two@example.net"],
        ]
        assert sink.tries == 3
        for sender, _, octets in sink.taken:
            assert sender == b"sender@example.org"
            assert octets.startswith(b"X-Sieve-Redirected-From: ana\r\nReceived: from ")
            assert octets.endswith(
                MESSAGE.partition(b"\r\n")[0] + b"\r\n" + b"Subject: one\r\n"
                b"Message-ID: <one@example.org>\r\n\r\nHello\r\n"
            )
        assert await client.subjects() == []


async def test_a_loop_ends_in_the_mailbox(tmp_path: Path) -> None:
    async with sending(tmp_path, b'redirect "else@example.org";') as (client, sink):
        marks = b"X-Sieve-Redirected-From: %b\r\n"
        heads = (marks % b"Ana", marks % b"bob" * 60, b"Received: by x\r\n" * 60)
        for head in heads:
            message = head + MESSAGE % (b"again", b"again")
            assert (await client.deliver("again", message=message))[0].startswith(b"250")
        assert await client.subjects() == [("again", [])] * 3
        assert client.outgoing() == [] and sink.tries == 0


async def test_what_is_refused_for_good_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with sending(
        tmp_path, b'redirect "else@example.org";', b"554 no", redirect_sender="recipient"
    ) as (client, sink):
        await client.deliver("one")
        await client.deliver("two")
        await client.deliver("bounce", sender="")
        await until_soon(lambda: len(sink.taken) == 2, "the others are sent")
        assert sink.tries == 3
        assert sorted(sender for sender, _, _ in sink.taken) == [b"", b"ana"]
        await until_soon(lambda: sorted(client.states()) == [SENT, SENT, FAILED], "one is not")
        ((subject, _),) = await client.subjects()  # what is nowhere else is kept
        assert subject in ("one", "two", "bounce")


VACATION = b'require "vacation"; vacation :days 1 :addresses "ana@example.net" "I am away";'


async def test_a_vacation_reply_goes_out_once_and_only_for_mail_to_the_user(
    tmp_path: Path,
) -> None:
    async with sending(tmp_path, VACATION) as (client, sink):
        for number, head in enumerate(
            (b"To: ana@example.net\r\n", b"To: ana@example.net\r\n", b"To: list@example.org\r\n")
        ):
            message = head + MESSAGE % (b"hi", b"id%d" % number)
            assert (await client.deliver("hi", message=message))[0].startswith(b"250")
        await client.deliver(
            "bounce", message=b"To: ana@example.net\r\n" + MESSAGE % (b"b", b"b"), sender=""
        )
        await until_soon(lambda: len(sink.taken) == 1, "the reply is sent")
        assert len(await client.subjects()) == 4
        assert len(client.outgoing()) == 1
        ((sender, to, octets),) = sink.taken
        assert (sender, to) == (b"", [b"sender@example.org"])
        assert b"Auto-Submitted: auto-replied" in octets and b"I am away" in octets


async def test_what_a_delivery_does_not_carry_out_is_not_offered(tmp_path: Path) -> None:
    async with delivering(tmp_path) as client:
        compiler = client.one.backend.site.users
        assert not {"vnd.dovecot.pipe", "vnd.dovecot.filter"} & set(compiler.extensions)
        assert {"vacation", "fileinto", "fcc", "extlists", "spamtest"} <= set(compiler.extensions)
        checked = await compiler.check(b'require "vnd.dovecot.pipe";', "ana")
        assert checked.errors


async def test_who_rejects_tells_the_sender_before_the_message_is_taken(tmp_path: Path) -> None:
    script = b'require "reject"; if header :contains "subject" "no" { reject "Not you"; }'
    async with delivering(tmp_path, script) as client:
        no, yes = await client.deliver("no", "ana", "bob")
        assert no.startswith(b"550 5.7.1 Not you") and yes.startswith(b"250")
        assert await client.subjects() == []
        assert await client.subjects(user="bob") == [("no", [])]


async def test_what_came_twice_is_known_again(tmp_path: Path) -> None:
    script = b'require "duplicate"; if duplicate { discard; }'
    async with delivering(tmp_path, script) as client:
        for subject in ("one", "one", "two"):
            assert (await client.deliver(subject))[0].startswith(b"250")
        assert await client.subjects() == [("one", []), ("two", [])]
