"""LMTP at a backend: folders behind `+`, quotas, duplicates, parameters; POP3's UTF8. Over real sockets."""

import asyncio
import imaplib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from murder.kit.incoming import FileIncoming
from murder.roles.backend.delivery import arrival
from murder.roles.backend.records.duplicates import Duplicates, key_of
from tests.rooms.backend.delivery.test_lmtp_and_pop3 import dialogue, pop, ports
from tests.rooms.backend.server import Running, config_in, running_backend, spool_store

T = TypeVar("T")


@dataclass(frozen=True)
class Ports:
    imap: int
    lmtp: int
    pop3: int

    def user(self, name: str) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.imap, timeout=60)
        client.login(name, "secret")
        return client

    def deliver(self, *recipients: str, message_id: str = "", parameters: str = "") -> list[str]:
        """The replies to each RCPT that is refused, then those behind the data."""
        head = f"Message-ID: {message_id}\r\n" if message_id else ""
        lines = [f"RCPT TO:<{recipient}>" for recipient in recipients]
        said = dialogue(
            self.lmtp,
            "\r\n".join(["LHLO x", f"MAIL FROM:<s@x>{parameters}", *lines, "DATA", ""]).encode(),
            f"{head}Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n".encode(),
        ).decode()
        _, _, envelope = said.partition("250 2.1.0")
        replies = [line for line in envelope.splitlines()[1:] if line[3:4] == " "]
        return [line[:9] for line in replies if not line.startswith(("354", "221"))]

    def count(self, user: str, mailbox: str = "INBOX") -> int:
        client = self.user(user)
        answer = client.select(mailbox)[1][0]
        client.logout()
        assert answer is not None
        return int(answer)


@asynccontextmanager
async def all_ports(running: Running) -> AsyncIterator[Ports]:
    async with ports(running) as (lmtp, pop3):
        yield Ports(running.address[1], lmtp, pop3)


def against(folder: Path, client: Callable[[Ports], T], **backend: Any) -> T:
    """Run a blocking client against a backend with a store on disk."""

    async def run() -> T:
        config = config_in(folder, **backend)
        async with (
            running_backend(folder, lambda: spool_store(folder), config=config) as running,
            all_ports(running) as ports,
            asyncio.timeout(60),
        ):
            return await asyncio.to_thread(client, ports)

    return asyncio.run(run())


def test_a_folder_takes_mail_where_its_access_list_lets_it(tmp_path: Path) -> None:
    def client(ports: Ports) -> None:
        ana = ports.user("ana")
        for name, who in (("open", "anyone"), ("nameless", "anonymous"), ("closed", "bob")):
            ana.create(f"INBOX/{name}")
            ana.setacl(f"INBOX/{name}", who, "p")
        ana.create("INBOX/Gr&APwA3w-e")
        ana.setacl("INBOX/Gr&APwA3w-e", "anyone", "p")
        for folder in ("open", "nameless", "closed", "missing", "Grüße"):
            assert ports.deliver(f"ana+{folder}@x", parameters=" SMTPUTF8") == ["250 2.1.5"] * 2
        assert ports.count("ana", "INBOX/open") == 1
        assert ports.count("ana", "INBOX/nameless") == 1
        assert ports.count("ana", "INBOX/closed") == 0
        assert ports.count("ana", "INBOX/Gr&APwA3w-e") == 1
        assert ports.count("ana") == 2  # what could not go where it was meant to

    against(tmp_path, client)


@pytest.mark.parametrize(
    ("manner", "code"), [("temporary", "452 4.2.2"), ("permanent", "552 5.2.2")]
)
def test_a_full_mailbox_is_said_to_each_recipient(tmp_path: Path, manner: str, code: str) -> None:
    def client(ports: Ports) -> None:
        admin = ports.user("admin")
        assert admin.setquota("user/ana", "(MESSAGE 1)")[0] == "OK"
        assert ports.deliver("ana", "bob") == ["250 2.1.5"] * 4
        assert ports.deliver("ana", "bob") == [code, "250 2.1.5", "250 2.1.5"]
        assert admin.setquota("user/bob", "(STORAGE 1)")[0] == "OK"
        assert admin.setquota("user/ana", "()")[0] == "OK"
        long = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob>\r\nRCPT TO:<ana>\r\nDATA\r\n"
        said = dialogue(ports.lmtp, long, b"x" * 2000 + b"\r\n.\r\nQUIT\r\n").decode()
        assert [line[:9] for line in said.splitlines()[-3:-1]] == [code, "250 2.1.5"]

    against(tmp_path, client, lmtp_over_quota=manner)


def test_parameters_that_nobody_offered_are_refused(tmp_path: Path) -> None:
    lines = (
        b"MAIL FROM:<s@x> RET=HDRS",
        b"MAIL FROM:<s@x> BODY=BINARYMIME",
        b"MAIL FROM:<s@x> SIZE=12 BODY=8bitmime SMTPUTF8 AUTH=<>",
        b"RCPT TO:<ana> NOTIFY=NEVER",
        b"RCPT TO:<ana>",
        b"QUIT",
    )

    def client(ports: Ports) -> bytes:
        return dialogue(ports.lmtp, b"LHLO x\r\n" + b"\r\n".join(lines) + b"\r\n")

    said = [line[:9] for line in against(tmp_path, client).splitlines() if line[3:4] == b" "]
    wanted = [b"555 5.5.4", b"501 5.5.2", b"250 2.1.0", b"555 5.5.4", b"250 2.1.5", b"221 2.0.0"]
    assert said[2:] == wanted


def test_the_trace_is_on_top_and_tells_nobody_of_the_others(tmp_path: Path) -> None:
    def client(ports: Ports) -> None:
        ports.deliver("ana+x@example.org")
        ports.deliver("ana@example.org", "bob@example.org")
        one, both = (pop(ports.pop3).retr(number)[1] for number in (1, 2))
        assert one[:2] == [b"Return-Path: <s@x>", b"Delivered-To: ana+x@example.org"]
        assert one[2].startswith(b"Received: from x ([127.0.0.1])")
        assert both[0] == b"Return-Path: <s@x>" and both[1].startswith(b"Received: ")
        assert not any(b"bob" in line for line in both)

    against(tmp_path, client)


# --- duplicates


def test_everything_is_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    def client(ports: Ports) -> int:
        for _ in range(2):
            ports.deliver("ana", message_id="<1@x>")
        return ports.count("ana")

    assert against(tmp_path, client) == 2


def test_a_message_id_is_kept_once_in_each_mailbox(tmp_path: Path) -> None:
    def client(ports: Ports) -> None:
        assert ports.deliver("ana", "bob", "ana@x", message_id="<1@x>") == ["250 2.1.5"] * 6
        assert ports.deliver("ana", "ana", message_id="\r\n <1@x>") == ["250 2.1.5"] * 4
        assert (ports.count("ana"), ports.count("bob")) == (1, 1)
        for _ in range(2):
            ports.deliver("ana", message_id="<2@x>")
            ports.deliver("ana")  # without one
        assert ports.count("ana") == 4

    against(tmp_path, client, suppress_duplicates_s=3600)


def test_duplicates_are_known_after_a_restart_and_in_a_new_mailbox_forgotten(
    tmp_path: Path,
) -> None:
    def first(ports: Ports) -> None:
        ana = ports.user("ana")
        ana.create("INBOX/list")
        ana.setacl("INBOX/list", "anyone", "p")
        ports.deliver("ana", "ana+list", message_id="<1@x>")

    def second(ports: Ports) -> None:
        ports.deliver("ana", "ana+list", message_id="<1@x>")
        assert (ports.count("ana"), ports.count("ana", "INBOX/list")) == (1, 1)
        ana = ports.user("ana")
        ana.delete("INBOX/list")
        ana.create("INBOX/list")
        ana.setacl("INBOX/list", "anyone", "p")
        ports.deliver("ana+list", message_id="<1@x>")
        assert ports.count("ana", "INBOX/list") == 1

    against(tmp_path, first, suppress_duplicates_s=3600)
    against(tmp_path, second, suppress_duplicates_s=3600)


def test_what_could_not_be_kept_is_no_duplicate(tmp_path: Path) -> None:
    def client(ports: Ports) -> None:
        admin = ports.user("admin")
        admin.setquota("user/bob", "(STORAGE 1)")
        head = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob>\r\nDATA\r\n"
        large = b"Message-ID: <1@x>\r\n\r\n" + b"x" * 2000 + b"\r\n.\r\nQUIT\r\n"
        assert b"452 4.2.2" in dialogue(ports.lmtp, head, large)
        admin.setquota("user/bob", "()")
        assert b"452" not in dialogue(ports.lmtp, head, large)
        assert ports.count("bob") == 1

    against(tmp_path, client, suppress_duplicates_s=3600)


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.readline()
    print("let go", file=open(sys.argv[2], "w"), flush=True)
"""


async def test_workers_take_turns_for_one_message(tmp_path: Path) -> None:
    duplicates, sign = Duplicates(tmp_path, 3600), tmp_path / "sign"
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(tmp_path / "lock"), str(sign)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None and other.stdin is not None
    assert await other.stdout.readline() == b"held\n"

    async def deliver() -> None:
        async with duplicates.alone(key_of("box", b"<1@x>")):
            assert sign.exists()

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        assert not await duplicates.has(b"")  # a turn of the loop and more
        other.stdin.write(b"\n")
    await other.wait()
    duplicates.close()


async def test_one_worker_delivers_a_message_once_at_a_time_and_entries_expire(
    tmp_path: Path,
) -> None:
    key = key_of("box", b"<1@x>")

    first, brief = Duplicates(tmp_path, 3600), Duplicates(tmp_path, 0.000_001)
    order = []

    async def deliver(name: str) -> None:
        async with first.alone(key):
            known = await first.has(key)
            order.append((name, known))
            await first.note(key)

    await asyncio.gather(deliver("a"), deliver("b"))
    assert order == [("a", False), ("b", True)]
    assert not await first.has(key_of("other", b"<1@x>"))
    assert not await brief.has(key)  # the time is over
    await brief.note(key_of("box", b"<2@x>"))
    assert not await first.has(key)  # and it has been removed
    first.close()
    brief.close()


# --- POP3


def test_utf8_is_for_before_the_login_and_changes_no_octet(tmp_path: Path) -> None:
    def client(ports: Ports) -> None:
        head = b"LHLO x\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<ana>\r\nDATA\r\n"
        text = "Subject: Grüße\r\n\r\nbody\r\n.\r\nQUIT\r\n".encode()
        dialogue(ports.lmtp, head, text)
        login = b"USER ana\r\nPASS secret\r\n"
        plain = dialogue(ports.pop3, b"CAPA\r\n" + login + b"LIST 1\r\nRETR 1\r\nUTF8\r\nQUIT\r\n")
        assert b"\r\nUTF8 USER\r\n" in plain
        assert plain.count(b"-ERR") == 1
        utf8 = dialogue(
            ports.pop3,
            b"UTF8 x\r\nUTF8\r\nUTF8\r\nSTLS\r\n" + login + b"LIST 1\r\nRETR 1\r\nQUIT\r\n",
        )
        assert utf8.count(b"-ERR") == 3
        assert "Grüße".encode() in utf8
        assert plain.partition(b"octets")[2].partition(b"-ERR")[0] in utf8

    against(tmp_path, client)


@pytest.mark.parametrize("trouble", ["fails", "is given up"])
def test_whatever_goes_wrong_each_recipient_has_an_answer(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is said to the next command would be taken for an acknowledgement."""

    async def told(_: object) -> int:
        future = asyncio.get_running_loop().create_future()
        if trouble == "fails":
            raise OSError("the disk")
        future.cancel()
        return int(await future)

    def client(ports: Ports) -> None:
        said = ports.deliver("ana", "bob", "ana+x")
        assert [line[:3] for line in said[-3:]] == ["451"] * 3, said
        assert ports.count("ana") == ports.count("bob") == 0

    monkeypatch.setattr(arrival, "size_told", told)
    against(tmp_path, client)


def test_what_is_delivered_is_acknowledged_whatever_becomes_of_the_file_it_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is sent again, and there twice."""
    close = FileIncoming.close

    async def fail(self: FileIncoming) -> None:
        await close(self)
        raise OSError("the disk")

    def client(ports: Ports) -> None:
        said = ports.deliver("ana", "bob")
        assert [line[:3] for line in said] == ["250"] * 4, said
        assert ports.count("ana") == ports.count("bob") == 1

    monkeypatch.setattr(FileIncoming, "close", fail)
    against(tmp_path, client)
