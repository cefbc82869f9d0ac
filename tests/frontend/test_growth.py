"""What a user does costs a frontend the same, however many mailboxes of others are in its list: the calls of Python, C and
LMDB that ours make, which no neighbour on the machine disturbs."""

import asyncio
import contextlib
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from types import FrameType
from typing import Final

from murder.config.sections import ServerConfig
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from tests.frontend.server import running_frontend
from tests.frontend.test_calls import USER, Backend, Client
from tests.kit.sections import server_section

OURS: Final = str(Path(__file__).parent.parent.parent / "murder")
SIZES: Final = (10, 3_000)
TIMES: Final = 3
TRIES: Final = 2
TENTH: Final = 1.1
DOINGS: Final = {
    "LOGIN": b"a LOGIN ana secret\r\n",
    "LIST": b'l LIST "" "*"\r\n',
    "SELECT": b"s SELECT INBOX\r\n",
}


def fill(mailboxes: MailboxList, number: int) -> None:
    def entry(i: int) -> MailboxEntry:
        owner = b"load%05d" % (i // 10)
        name = MailboxName(b"user.%b.box%d" % (owner, i % 10))
        return MailboxEntry(name, EntryState.ACTIVE, b"be1.test!p", owner + b"\tlrs\t")

    mailboxes.commit([PutEntry(entry(i)) for i in range(number)])


class MailServer(Backend):
    """The same for LMTP."""

    def _serve(self, sock: socket.socket) -> None:
        sock.sendall(b"220 be1.test LMTP\r\n")
        with contextlib.suppress(ConnectionError), sock, sock.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"LHLO"):
                    sock.sendall(b"250-be1.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
                else:
                    sock.sendall(b"235 in\r\n" if line.startswith(b"AUTH") else b"250 done\r\n")


class Counting:
    """By what is done: calls, of our code and from it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.doing = ""

    def note(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(OURS):
            self.calls[self.doing] += 1


def mail(port: int, counting: Counting) -> None:
    """As a mail server that asks for a recipient."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock, sock.makefile("rb") as lines:
        lines.readline()
        for line in (
            b"LHLO load.test",
            *(b"MAIL FROM:<a@x.test>", b"RCPT TO:<ana>", b"RSET") * TIMES,
        ):
            counting.doing = "RCPT" if line.startswith(b"RCPT") else ""
            sock.sendall(line + b"\r\n")
            while (said := lines.readline())[3:4] == b"-":
                pass
            assert said.startswith(b"2"), said


def read(port: int, counting: Counting) -> None:
    """As a mail client."""
    for _ in range(TIMES):
        client = Client(port)
        for doing, octets in DOINGS.items():
            counting.doing = doing
            client.ask(octets)
        counting.doing = ""
        client.leave()


async def counted(folder: Path, size: int, section: ServerConfig) -> Mapping[str, int]:
    loop = asyncio.get_running_loop()
    async with running_frontend(
        folder,
        {},
        {USER: "be1.test"},
        sections={"be1.test": section},
        lmtp_trusted=(ip_network("127.0.0.0/8"),),
    ) as running:
        fill(running.mailboxes, size)
        counting = Counting()
        for act, kind in ((read, "imap"), (mail, "lmtp")):
            await loop.run_in_executor(None, act, running.ports[kind], counting)  # warms up
        tries = []
        for _ in range(
            TRIES
        ):  # where another program has the processor, octets come in more pieces
            counting.calls.clear()
            sys.setprofile(counting.note)
            try:
                for act, kind in ((read, "imap"), (mail, "lmtp")):
                    await loop.run_in_executor(None, act, running.ports[kind], counting)
            finally:
                sys.setprofile(None)
            tries.append(dict(counting.calls))
        return {doing: min(one[doing] for one in tries) for doing in (*DOINGS, "RCPT")}


def test_a_user_costs_the_same_among_many_mailboxes(tmp_path: Path) -> None:
    with contextlib.closing(Backend()) as backend, contextlib.closing(MailServer()) as mailing:
        section = server_section(address="127.0.0.1", imap=backend.port, lmtp=mailing.port)
        few, many = (asyncio.run(counted(tmp_path / str(size), size, section)) for size in SIZES)
    assert all(few.values())
    assert all(many[doing] <= few[doing] * TENTH for doing in few), (few, many)
