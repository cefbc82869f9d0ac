"""What a user does costs a frontend the same, however many mailboxes of others are in its list: the calls of Python, C and
LMDB that ours make, which no neighbour on the machine disturbs."""

import asyncio
import contextlib
import socket
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
from tests.kit.sections import server_section
from tests.kit.steps import OURS, Profiled
from tests.rooms.frontend.server import running_frontend
from tests.rooms.frontend.test_calls import USER, Backend, Client

SIZES: Final = (10, 3_000)
TIMES: Final = 3
TRIES: Final = 3
MOST_TRIES: Final = 15
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


def is_within(many: Mapping[str, int], few: Mapping[str, int]) -> bool:
    return all(many[doing] <= few[doing] * TENTH for doing in few)


async def counted(
    folder: Path, size: int, section: ServerConfig, few: Mapping[str, int] | None = None
) -> Mapping[str, int]:
    """The fewest calls of a few tries: where another program has the processor, octets come in more pieces. Beside
    `few`, tries go on until they are within its bounds, or to the end of what a machine can excuse.
    """
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
        fewest: dict[str, int] = {}
        for done in range(MOST_TRIES):
            if done >= TRIES and (few is None or is_within(fewest, few)):
                break
            counting.calls.clear()
            with Profiled(counting.note):
                for act, kind in ((read, "imap"), (mail, "lmtp")):
                    await loop.run_in_executor(None, act, running.ports[kind], counting)
            for doing in (*DOINGS, "RCPT"):
                calls = counting.calls[doing]
                fewest[doing] = min(fewest.get(doing, calls), calls)
        return fewest


def test_a_user_costs_the_same_among_many_mailboxes(tmp_path: Path) -> None:
    with contextlib.closing(Backend()) as backend, contextlib.closing(MailServer()) as mailing:
        section = server_section(address="127.0.0.1", imap=backend.port, lmtp=mailing.port)
        few = asyncio.run(counted(tmp_path / "few", SIZES[0], section))
        many = asyncio.run(counted(tmp_path / "many", SIZES[1], section, few))
    assert all(few.values())
    assert is_within(many, few), (few, many)
