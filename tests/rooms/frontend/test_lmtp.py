"""LMTP at a frontend, over real sockets: what each backend says reaches its own recipients, and only them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.log import set_up
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import inbox_of
from murder.net import dialogue
from murder.roles.frontend.lmtp import FrontendLmtp
from murder.roles.mupdate.database.change import PutEntry
from murder.serve.lmtp import OWED_AT_ONCE, LmtpDialogue
from tests.kit.peer import Peer
from tests.kit.steps import Calls
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import Parts, Running, Speak, running_frontend

USERS = {"ana": "be1", "bob": "be2", "cid": "be1", "eve": "be3"}
TEXT = b"Subject: x\r\n\r\n.dotted\r\nend\r\n"


class Backend:
    """A scripted LMTP server: its replies by the first words of a command, and what it was told."""

    def __init__(self, *offers: bytes, **replies: bytes) -> None:
        self.offers = offers
        self.replies = replies
        self.offers_who_is_known = offers  # behind AUTH
        self.told: list[bytes] = []
        self.texts: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.released = asyncio.Event()  # for a reply of b"wait"

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 here\r\n")
        accepted = 0
        while line := await reader.readline():
            self.told.append(line.rstrip())
            self.asked.set()
            verb = line.split()[0].decode().upper()
            if verb == "AUTH":
                self.offers = self.offers_who_is_known
            said = self.replies.get(verb, b"")
            for who in (b"ana", b"bob", b"cid", b"eve"):
                if verb == "RCPT" and b"<" + who in line:
                    said = self.replies.get("RCPT_" + who.decode(), said)
            if said == b"wait":
                await self.released.wait()
                said = b""
            if said == b"close":
                return
            if verb == "LHLO":
                lines = [b"250-be", *(b"250-" + word for word in self.offers), b"250 SIZE"]
                said = b"\r\n".join(lines)
            elif verb in ("DATA", "BDAT") and not said:
                if verb == "DATA":
                    writer.write(b"354 go\r\n")
                    text = await reader.readuntil(b"\r\n.\r\n")
                else:
                    assert line.endswith(b" LAST\r\n")
                    text = await reader.readexactly(int(line.split()[1]))
                self.texts.append(text)
                for _ in range(accepted):
                    await self._verdict(writer)
                accepted = 0
                continue
            said = said or b"250 2.0.0 " + verb.encode()
            accepted += verb == "RCPT" and said.startswith(b"2")
            accepted *= verb not in ("RSET", "MAIL")
            writer.write(said + b"\r\n")

    async def _verdict(self, writer: asyncio.StreamWriter) -> None:
        said = self.replies.get("END", b"250 2.1.5 kept")
        if said == b"wait":
            await self.released.wait()
            said = b"250 2.1.5 late"
        writer.write(said + b"\r\n")


@asynccontextmanager
async def with_backends(
    folder: Path, *backends: Backend, users: Mapping[str, str] = USERS, **frontend: Any
) -> AsyncIterator[tuple[Running, Peer]]:
    """A frontend, and a client that has said LHLO and MAIL."""
    scripts: dict[str, tuple[str, Speak]] = {
        f"be{number}": ("lmtp", backend.speak) for number, backend in enumerate(backends, 1)
    }
    async with running_frontend(folder, scripts, users, **frontend) as running:
        client = await Peer.at(running.ports["lmtp"])
        await client.reply()
        await client.replied(b"LHLO mta.test\r\n")
        assert (await client.replied(b"MAIL FROM:<a@example.org>\r\n")).startswith(b"250")
        yield running, client
        client.writer.close()
        for backend in backends:
            backend.released.set()


async def test_a_backends_answer_to_rcpt_and_to_the_text_is_passed_on_as_it_is(
    tmp_path: Path,
) -> None:
    first = Backend(RCPT_cid=b"452-4.2.2 full\r\n452 4.2.2 quite")
    second = Backend(END=b"554 5.6.0 not this")

    async with with_backends(tmp_path, first, second) as (_, client):
        assert await client.replied(b"RCPT TO:<ana@x>\r\n") == b"250 2.0.0 RCPT"
        client.send(b"RCPT TO:<cid@x>\r\n")
        assert await client.line() == b"452-4.2.2 full"
        assert await client.line() == b"452 4.2.2 quite"
        assert await client.replied(b"RCPT TO:<bob@x>\r\n") == b"250 2.0.0 RCPT"
        assert (await client.replied(b"RCPT TO:<nobody@x>\r\n")).startswith(b"550 5.1.1 ")
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        client.send(b"Subject: x\r\n\r\n..dotted\r\nend\r\n.\r\n")
        assert await client.line() == b"250 2.1.5 kept"
        assert await client.line() == b"554 5.6.0 not this"
        assert first.texts == second.texts == [b"Subject: x\r\n\r\n..dotted\r\nend\r\n.\r\n"]


async def test_pipelined_recipients_are_asked_at_once_and_answered_in_order(tmp_path: Path) -> None:
    first, second = Backend(RCPT=b"wait"), Backend()

    async with with_backends(tmp_path, first, second) as (_, client):
        client.send(
            b"RCPT TO:<ana>\r\nRCPT TO:<nobody>\r\nRCPT TO:<cid>\r\nRCPT TO:<bob>\r\nDATA\r\n"
        )
        while not any(line.startswith(b"RCPT") for line in second.told):
            second.asked.clear()
            await second.asked.wait()
        first.released.set()
        said = [await client.line() for _ in range(5)]
        assert [line[:3] for line in said] == [b"250", b"550", b"250", b"250", b"354"]


async def test_a_backend_that_does_not_answer_costs_its_own_recipients_only(tmp_path: Path) -> None:
    first, second = Backend(RCPT=b"wait"), Backend()

    async with with_backends(tmp_path, first, second, upstream_login_timeout_s=1.0) as (_, client):
        client.send(
            b"RCPT TO:<ana>\r\nRCPT TO:<bob>\r\nRCPT TO:<cid>\r\nDATA\r\n" + TEXT + b".\r\n"
        )
        said = [await client.line() for _ in range(5)]
        assert [line[:9] for line in said] == [
            b"451 4.4.2",
            b"250 2.0.0",
            b"451 4.4.2",
            b"354 End w",
            b"250 2.1.5",
        ]


async def test_who_is_delivered_is_told_so_while_another_backend_still_works(
    tmp_path: Path,
) -> None:
    first, second = Backend(), Backend(END=b"wait")

    async with with_backends(tmp_path, first, second) as (_, client):
        client.send(b"RCPT TO:<ana>\r\nRCPT TO:<bob>\r\nDATA\r\n" + TEXT + b".\r\n")
        said = [await client.line() for _ in range(4)]
        assert said[3] == b"250 2.1.5 kept"
        second.released.set()
        assert await client.line() == b"250 2.1.5 late"


async def test_a_large_text_reaches_one_backend_while_the_other_takes_nothing(
    tmp_path: Path,
) -> None:
    first, second = Backend(), Backend(DATA=b"wait")
    line = b"0123456789abcdef" * 4 + b"\r\n"

    async with with_backends(tmp_path, first, second) as (_, client):
        client.send(b"RCPT TO:<ana>\r\nRCPT TO:<bob>\r\nDATA\r\n" + line * 100_000 + b".\r\n")
        said = [await client.line() for _ in range(4)]
        assert said[3] == b"250 2.1.5 kept"
        second.released.set()
        assert await client.line() == b"250 2.1.5 kept"
    assert len(first.texts[0]) == 100_000 * len(line) + 3
    assert first.texts == second.texts


async def test_a_kept_connection_that_has_gone_is_opened_again(tmp_path: Path) -> None:
    first = Backend()

    async with with_backends(tmp_path, first) as (_, client):
        first.replies["RSET"] = b"close"
        assert await client.replied(b"RCPT TO:<ana>\r\n") == b"250 2.0.0 RCPT"
        assert (await client.replied(b"RSET\r\n")).startswith(b"250")
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n" + TEXT + b".\r\n")
        said = [await client.line() for _ in range(4)]
        assert [line[:3] for line in said] == [b"250", b"250", b"354", b"250"]
        assert first.connections == 2


@pytest.mark.parametrize("reply", [b"421 4.3.2 going down", b"530 5.7.0 who are you", b"close"])
async def test_what_is_about_the_connection_is_no_answer_for_a_recipient(
    tmp_path: Path, reply: bytes
) -> None:
    first = Backend(RCPT=reply)

    async with with_backends(tmp_path, first) as (_, client):
        assert (await client.replied(b"RCPT TO:<ana>\r\n")).startswith(b"451 4.")
        assert (await client.replied(b"DATA\r\n")).startswith(b"503 ")


async def test_a_backend_that_wants_to_know_is_told_who_the_client_is(tmp_path: Path) -> None:
    first = Backend(b"XCLIENT ADDR PORT HELO TTL NAME", b"SMTPUTF8")

    async with with_backends(tmp_path, first) as (_, client):
        assert await client.replied(b"RCPT TO:<ana>\r\n") == b"250 2.0.0 RCPT"
        port = client.writer.get_extra_info("sockname")[1]
        assert b"XCLIENT ADDR=127.0.0.1 PORT=%d HELO=mta.test TTL=4" % port in first.told


async def test_a_backend_that_believes_nobody_before_a_login_is_told_the_client_behind_it(
    tmp_path: Path,
) -> None:
    first = Backend(b"AUTH PLAIN", AUTH=b"235 2.7.0 in")
    first.offers_who_is_known = (b"XCLIENT ADDR TTL", b"SMTPUTF8")

    async with with_backends(tmp_path, first) as (_, client):
        assert await client.replied(b"RCPT TO:<ana@x>\r\n") == b"250 2.0.0 RCPT"
        words = [line.split()[0] for line in first.told]
        assert words == [b"LHLO", b"AUTH", b"LHLO", b"XCLIENT", b"LHLO", b"MAIL", b"RCPT"]
        assert b"XCLIENT ADDR=127.0.0.1 TTL=4" in first.told


@pytest.mark.parametrize(
    ("reply", "kind", "cure"),
    [
        (b"535 5.7.8 who?", "auth", "is proxy_user named"),
        (b"454 4.7.0 later", "auth-temporary", ""),
    ],
)
async def test_a_backend_that_does_not_let_this_node_deliver_says_why_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], reply: bytes, kind: str, cure: str
) -> None:
    set_up("info", "json")
    async with with_backends(tmp_path, Backend(b"AUTH PLAIN", AUTH=reply)) as (_, client):
        assert (await client.replied(b"RCPT TO:<ana@x>\r\n")).startswith(b"451 4.")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    problems = [(one["kind"], one["problem"]) for one in lines if one["event"] == "upstream.failed"]
    assert problems and problems[0][0] == kind
    assert reply.decode() in problems[0][1] and cure in problems[0][1]


async def test_a_circle_of_proxies_comes_to_an_end(tmp_path: Path) -> None:
    port = 0

    async def itself(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            while octets := await one.read(65536):
                other.write(octets)
            other.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))

    backends: dict[str, tuple[str, Speak]] = {"be1": ("lmtp", itself)}
    async with running_frontend(tmp_path, backends, {"ana": "be1"}) as running:
        port = running.ports["lmtp"]
        client = await Peer.at(port)
        await client.reply()
        await client.replied(b"LHLO mta\r\n")
        await client.replied(b"MAIL FROM:<>\r\n")
        assert (await client.replied(b"RCPT TO:<ana>\r\n")).startswith(b"451 4.5.0")
        client.writer.close()


async def test_a_message_that_the_client_gives_up_reaches_nobody(tmp_path: Path) -> None:
    first = Backend()

    async with with_backends(tmp_path, first) as (_running, client):
        client.send(b"RCPT TO:<ana>\r\nDATA\r\nSubject: half\r\n")
        for _ in range(2):
            await client.line()
        client.writer.transport.abort()
        client = await Peer.at(_running.ports["lmtp"])
        await client.reply()
    assert first.texts == []


async def test_who_has_just_moved_is_waited_for_and_not_unknown(tmp_path: Path) -> None:
    """Their old backend knows them no more; their mail must not go back for that, before the text or behind it."""
    unknown = b"550-Mailbox unknown.\r\n550 5.1.1 User unknown"
    first = Backend(RCPT_ana=unknown, RCPT_eve=b"550 5.7.1 not to them", END=unknown)
    second = Backend()

    async with with_backends(tmp_path, first, second, users={**USERS, "eve": "be1"}) as (
        running,
        client,
    ):

        def put(user: str, state: EntryState, server: bytes) -> None:
            entry = MailboxEntry(inbox_of(user), state, server + b"!default", b"")
            running.mailboxes.commit([PutEntry(entry)])

        assert await client.replied(b"RCPT TO:<ana@x>\r\n") == b"550 5.1.1 User unknown"
        assert await client.replied(b"RCPT TO:<eve@x>\r\n") == b"550 5.7.1 not to them"
        assert await client.replied(b"RCPT TO:<cid@x>\r\n") == b"250 2.0.0 RCPT"
        put("cid", EntryState.RESERVED, b"be1")
        assert (await client.replied(b"RCPT TO:<cid@x>\r\n")).startswith(b"451 4.2.1 ")
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        put("cid", EntryState.ACTIVE, b"be2")
        assert (await client.replied(b"Subject: x\r\n\r\nend\r\n.\r\n")).startswith(b"451 4.2.1 ")
        assert not second.texts


def verbs(backend: Backend) -> list[bytes]:
    return [line.split()[0] for line in backend.told]


async def test_a_text_that_has_come_whole_goes_in_one_step_to_who_takes_it_so(
    tmp_path: Path,
) -> None:
    first, second = Backend(b"CHUNKING"), Backend(END=b"554 5.6.0 not this")

    async with with_backends(tmp_path, first, second) as (_, client):
        for who in (b"ana", b"bob", b"cid"):
            assert (await client.replied(b"RCPT TO:<%b>\r\n" % who)).startswith(b"250")
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        client.send(b"Subject: x\r\n\r\n..dotted\nend\r\n.\r\n")
        said = [await client.line() for _ in range(3)]
        assert said == [b"250 2.1.5 kept", b"554 5.6.0 not this", b"250 2.1.5 kept"]
        assert first.texts == [b"Subject: x\r\n\r\n.dotted\r\nend\r\n"]
        assert second.texts == [b"Subject: x\r\n\r\n..dotted\r\nend\r\n.\r\n"]
        assert verbs(first) == [b"LHLO", b"MAIL", b"RCPT", b"RCPT", b"BDAT"]
        assert verbs(second) == [b"LHLO", b"MAIL", b"RCPT", b"DATA"]
        assert await client.replied(b"MAIL FROM:<>\r\n") == b"250 2.1.0 Ok"
        assert (await client.replied(b"RCPT TO:<ana>\r\n")).startswith(b"250")
        assert (await client.replied(b"RSET\r\n")).startswith(b"250")
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n.\r\n")
        assert [(await client.line())[:3] for _ in range(4)] == [b"250", b"250", b"354", b"250"]
        assert first.texts[1:] == [b""]


@pytest.mark.parametrize("text", [b"a", b"a\r\nb", b"a\r", b"\r\n", b"."])
async def test_a_text_without_an_end_of_its_last_line_is_the_same_either_way(
    text: bytes, tmp_path: Path
) -> None:
    first, second = Backend(b"CHUNKING"), Backend()

    async with with_backends(tmp_path, first, second) as (_, client):
        client.send(b"RCPT TO:<ana>\r\nRCPT TO:<bob>\r\n")
        client.send(b"BDAT %d LAST\r\n%b" % (len(text), text))
        assert [(await client.line())[:3] for _ in range(4)] == [b"250"] * 4
        lines = [line.removeprefix(b".") for line in second.texts[0].split(b"\r\n")[:-2]]
        assert first.texts == [b"".join(line + b"\r\n" for line in lines)]


@pytest.mark.parametrize("pieces", [2, 3])
async def test_a_text_that_comes_in_pieces_goes_on_as_it_comes(pieces: int, tmp_path: Path) -> None:
    first = Backend(b"CHUNKING")

    async with with_backends(tmp_path, first) as (_, client):
        assert (await client.replied(b"RCPT TO:<ana>\r\n")).startswith(b"250")
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        for number in range(pieces - 1):
            client.send(b"%d line\r\n" % number)
            await until_soon(lambda: b"DATA" in verbs(first))
        client.send(b"end\r\n.\r\n")
        assert await client.line() == b"250 2.1.5 kept"
        lines = [b"%d line\r\n" % number for number in range(pieces - 1)]
        assert first.texts == [b"".join((*lines, b"end\r\n.\r\n"))]
        assert b"BDAT" not in verbs(first)


async def test_a_large_text_at_once_goes_on_as_it_comes(tmp_path: Path) -> None:
    first = Backend(b"CHUNKING")
    line = b"0123456789abcdef" * 4 + b"\r\n"

    async with with_backends(tmp_path, first) as (_, client):
        client.send(b"RCPT TO:<ana>\r\nDATA\r\n" + line * 100_000 + b".\r\n")
        assert [(await client.line())[:3] for _ in range(3)] == [b"250", b"354", b"250"]
        assert first.texts == [line * 100_000 + b".\r\n"]


@pytest.mark.parametrize("reply", [b"421 4.3.2 going down", b"close"])
async def test_a_backend_that_fails_where_it_is_given_the_text_has_not_taken_it(
    reply: bytes, tmp_path: Path
) -> None:
    first = Backend(b"CHUNKING", BDAT=reply)

    async with with_backends(tmp_path, first) as (_, client):
        client.send(b"RCPT TO:<ana>\r\nRCPT TO:<cid>\r\nDATA\r\n" + TEXT + b".\r\n")
        said = [await client.line() for _ in range(5)]
        assert [line[:3] for line in said] == [b"250", b"250", b"354", b"451", b"451"]
        first.replies.pop("BDAT")
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\n" + TEXT + b".\r\n")
        assert [(await client.line())[:3] for _ in range(4)] == [b"250", b"250", b"354", b"250"]
        assert first.connections == 2


@pytest.mark.parametrize("text", [b"", b"Subject: half\r\n"])
async def test_who_gives_up_amid_the_text_has_sent_nothing_to_who_takes_it_in_one_step(
    text: bytes, tmp_path: Path
) -> None:
    first = Backend(b"CHUNKING")

    async with with_backends(tmp_path, first) as (running, client):
        client.send(b"RCPT TO:<ana>\r\nDATA\r\n")
        for _ in range(2):
            await client.line()
        if text:
            client.send(text)
            await until_soon(lambda: b"DATA" in verbs(first))
        client.writer.transport.abort()
        frontend = running.role.frontend
        assert frontend is not None
        await until_soon(lambda: not frontend.sessions)
    assert first.texts == [] and b"BDAT" not in verbs(first)


class KnowsPeople(Parts):
    """Whose plugin knows that `a.arendt@example.org` is ana."""

    is_away = False

    async def user_of_address(self, address: str) -> str | None:
        if self.is_away:
            raise UpstreamFailure(UpstreamKind.CONNECT, "directory", "refused")
        return "ana" if address == "a.arendt@example.org" else None


async def test_an_address_is_who_a_plugin_says(tmp_path: Path) -> None:
    one, parts = Backend(), KnowsPeople()
    async with (
        running_frontend(tmp_path, {"be1": ("lmtp", one.speak)}, USERS, parts=parts) as running,
    ):
        peer = await Peer.at(running.ports["lmtp"])
        await peer.line()
        peer.send(b"LHLO me\r\nMAIL FROM:<x@example.net>\r\n")
        await peer.until(b"250 2.1.0")
        peer.send(b"RCPT TO:<a.arendt+lists@example.org>\r\n")
        assert (await peer.line()).startswith(b"250")
        peer.send(b"RCPT TO:<nobody@example.org>\r\n")
        assert (await peer.line()).startswith(b"550")
        peer.send(b"RCPT TO:<cid@example.org>\r\n")
        assert (await peer.line()).startswith(b"250")
        parts.is_away = True
        peer.send(b"RCPT TO:<ana@example.org>\r\n")
        assert (await peer.line()).startswith(b"451")
        await peer.close()
    told = [line for line in one.told if line.startswith(b"RCPT")]
    assert told == [b"RCPT TO:<ana+lists>", b"RCPT TO:<cid@example.org>"]


async def test_recipients_that_are_refused_are_no_more_than_some_in_a_transaction(
    tmp_path: Path,
) -> None:
    """Of each that is asked for something is kept until the transaction ends."""
    first = Backend(RCPT=b"550 5.2.1 not now")
    async with with_backends(tmp_path, first, max_recipients=3) as (_, client):
        client.send(b"RCPT TO:<ana@x>\r\n" * 20)
        said = [await client.line() for _ in range(20)]
        assert [line[:3] for line in said] == [b"550"] * 3 + [b"452"] * 17
        for _ in range(2):
            said = [await client.replied(b"RCPT TO:<ana@x>\r\n") for _ in range(4)]
        assert said[-1].startswith(b"452 4.5.3 ")
        assert sum(line.startswith(b"RCPT") for line in first.told) <= 6
        assert (await client.replied(b"RSET\r\n")).startswith(b"250")
        assert (await client.replied(b"MAIL FROM:<a@x>\r\n")).startswith(b"250")
        assert (await client.replied(b"RCPT TO:<ana@x>\r\n")).startswith(b"550")


@pytest.mark.parametrize("count", [100, 200])
@pytest.mark.parametrize("step", ["said", "heard"])
async def test_hundreds_of_recipients_are_answered_some_at_a_time(
    step: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their backend says all at once. Each answer may be a line in the mail log; here no turn of the loop lasts."""
    monkeypatch.setattr(dialogue, "TURN_S", 0.0)
    first = Backend()
    async with with_backends(tmp_path, first) as (_, client):
        async with Calls("_say" if step == "said" else "_judged") as to_recipients:
            client.send(b"".join(b"RCPT TO:<ana+%d@x>\r\n" % n for n in range(count)))
            said = [await client.line() for _ in range(count)]
        assert all(line.startswith(b"250") for line in said)
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        async with Calls("_answered" if step == "said" else "_judged") as of_the_text:
            client.send(TEXT + b".\r\n")
            said = [await client.line() for _ in range(count)]
        assert all(line.startswith(b"250") for line in said)
    assert 0 < to_recipients.longest <= 16
    assert 0 < of_the_text.longest <= 16


async def test_what_backends_said_is_noted_though_the_client_has_gone(tmp_path: Path) -> None:
    """It gave up waiting, and will come again: the message is there, for each of them."""
    first = Backend(END=b"wait")
    count = 40
    async with with_backends(tmp_path, first) as (running, client):
        client.send(b"".join(b"RCPT TO:<ana+%d@x>\r\n" % n for n in range(count)))
        assert all([(await client.line()).startswith(b"250") for _ in range(count)])
        assert (await client.replied(b"DATA\r\n")).startswith(b"354")
        client.send(TEXT + b".\r\n")
        await until_soon(lambda: first.texts)
        assert running.role.frontend is not None
        (session,) = running.role.frontend.sessions
        assert isinstance(session, FrontendLmtp)
        session.connection.abort()  # as where it resets the connection
        await until_soon(lambda: session.connection.is_lost)
        first.released.set()
        await until_soon(lambda: not session.is_busy)
        assert session.service.figures.numbers["messages"] == {("relayed",): count}


@pytest.mark.parametrize("count", [1000, 2000])
async def test_replies_to_pipelined_recipients_are_not_collected_without_end(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come before the first of them is answered."""
    owed: list[int] = []
    real = LmtpDialogue._settle

    async def settle(self: LmtpDialogue) -> None:
        owed.append(len(self._owed))
        await real(self)

    monkeypatch.setattr(LmtpDialogue, "_settle", settle)
    first = Backend()
    async with with_backends(tmp_path, first, max_recipients=5) as (_, client):
        client.send(b"RCPT TO:<ana@x>\r\n" * count)
        said = [await client.line() for _ in range(count)]
    assert [line[:3] for line in said] == [b"250"] * 5 + [b"452"] * (count - 5)
    assert max(owed) <= OWED_AT_ONCE
