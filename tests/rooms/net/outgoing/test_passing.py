"""A backend goes while what it has sent waits for a turn, or for the client: all is passed on, and then the end told."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from murder.net.bulk import SLICE_OCTETS
from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import ImapUpstream
from murder.session.imap_client import STEPS, non_synchronising
from tests.kit.waiting import until_soon


class Filled(Client):
    """Is full from what makes it `most` octets on, until `drain`."""

    def __init__(self, most: int) -> None:
        self.octets = b""
        self.most = most
        self.lost: list[tuple[list[bytes], bool]] = []
        self.connection = cast(
            Any,
            SimpleNamespace(is_plain=False, is_tls=False, writing_paused=False, write=self.take),
        )

    def take(self, data: bytes) -> None:
        self.octets += data
        cast(Any, self.connection).writing_paused = len(self.octets) >= self.most

    def drain(self) -> None:
        cast(Any, self.connection).writing_paused = False

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        self.lost.append((tags, mid_response))


def upstream_for(client: Client) -> tuple[ImapUpstream, list[bytes]]:
    """It, and what it has sent."""
    sent: list[bytes] = []
    upstream = ImapUpstream(cast(Any, SimpleNamespace(server="be.test")), client, 60, 100_000)
    upstream.connection = cast(
        Any,
        SimpleNamespace(
            is_plain=False,
            is_lost=True,  # no more is read of it
            write=sent.append,
            abort=lambda: None,
            acknowledge_now=lambda: None,
            pause_reading=lambda: None,
            resume_reading=lambda: None,
            transport=SimpleNamespace(is_reading=lambda: False),
        ),
    )
    upstream.passes_unsolicited = True
    return upstream, sent


UNASKED = (
    b"* 7 EXISTS\r\n* 7 FETCH (UID 9 BODY[] {12}\r\na OK b\r\n* c\r X {2}\r\nyz)\r\n* 1 EXPUNGE\r\n"
)
BEHIND = b"* 2 EXPUNGE\r\n"


async def test_a_response_that_is_half_said_before_an_own_command_stays_one() -> None:
    """Wherever it is cut: the client has a beginning, and gets the rest; or it has nothing, and all is heard with the
    answer. The rest was taken for the answer, and the beginning stood before what came next."""
    for cut in range(len(UNASKED)):
        client = Filled(1_000_000)
        upstream, sent = upstream_for(client)
        upstream.received(UNASKED[:cut])
        asked = asyncio.create_task(upstream.execute(b"NOOP"))
        await asyncio.sleep(0)
        tag = sent[0].partition(b" ")[0]
        rest = UNASKED[cut:] + tag + b" OK done\r\n" + BEHIND
        for at in range(0, len(rest), 5):
            upstream.received(rest[at : at + 5])
        reply = await asked
        assert reply.is_ok, cut
        heard = b"".join(reply.untagged)
        passed = UNASKED.removesuffix(heard)
        assert passed + heard == UNASKED, (cut, heard)
        assert client.octets == passed + BEHIND, cut


async def test_the_rest_of_what_is_half_said_is_looked_at_in_turns() -> None:
    """A response may have any number of literals, and the own command's answer is behind them."""
    begun, rest = b"* 7 FETCH (X {1}\r\n", b"a" + b"{0}\r\n" * (3 * STEPS) + b")\r\n"
    client = Filled(1_000_000)
    upstream, sent = upstream_for(client)
    upstream.received(begun)
    asked = asyncio.create_task(upstream.execute(b"NOOP"))
    await asyncio.sleep(0)
    tag = sent[0].partition(b" ")[0]
    upstream.received(rest + BEHIND + tag + b" OK done\r\n")
    assert len(begun) < len(client.octets) < len(begun) + 6 * STEPS
    reply = await asked
    assert reply.is_ok and reply.untagged == [BEHIND]
    assert client.octets == begun + rest


async def test_the_end_is_told_behind_what_has_filled_the_client_last() -> None:
    said = b"* BAD news\r\n" * (STEPS + STEPS // 2)
    client = Filled(len(said))
    upstream, _ = upstream_for(client)
    upstream.relay(b"a1", b"a1 NOOP\r\n")
    upstream.received(said)
    assert len(client.octets) < len(said)
    upstream.lost(None)
    await until_soon(lambda: len(client.octets) == len(said))
    assert not client.lost
    client.drain()
    upstream.client_writable()
    await until_soon(lambda: client.lost)
    assert client.lost == [([b"a1"], False)] and client.octets == said


class Octets(bytes):
    """What one reading has brought; `copied` octets of it were cut off, not passed on."""

    copied = 0

    def partition(self, by: Any) -> tuple[bytes, bytes, bytes]:
        Octets.copied += len(self)
        return super().partition(by)


async def test_of_a_large_literal_nothing_is_copied_on_its_way() -> None:
    """A message comes as pieces of 256 KiB, each of which begins and ends where it likes."""
    client = Filled(1 << 62)
    upstream, _ = upstream_for(client)
    upstream.relay(b"a1", b"a1 FETCH 1 BODY[]\r\n")
    piece = b"line\r\n" * 10_000
    upstream.received(b"* 1 FETCH (BODY[] {%d}\r\n" % (4 * len(piece)))
    for _ in range(4):
        upstream.received(Octets(piece))
    assert Octets.copied == 0
    upstream.received(b")\r\na1 OK done\r\n")
    assert client.octets.endswith(b")\r\na1 OK done\r\n") and not upstream.flight


LONG = b"m UID FETCH %s FLAGS\r\n" % b",".join(b"%d" % uid for uid in range(1, 100_000, 2))


async def test_a_long_command_goes_on_a_slice_at_a_time() -> None:
    """As the backend takes it: forty of 3 MB were written whole, each once more in memory, and 40 ms of the loop."""
    for way in ("relay", "relayed", "execute"):
        upstream, sent = upstream_for(Filled(1_000_000))
        may_go_on, waits = asyncio.Semaphore(0), 0

        async def drain(timeout_s: float, may_go_on: asyncio.Semaphore = may_go_on) -> None:
            nonlocal waits
            waits += 1
            await may_go_on.acquire()

        cast(Any, upstream.connection).drain = drain
        work = {
            "relay": lambda it: it.relay_much(b"m", LONG),
            "relayed": lambda it: it.relayed(b"m", much=LONG),
            "execute": lambda it: it.execute(LONG[2:-2]),
        }[way]
        asked = asyncio.create_task(cast(Any, work)(upstream))
        await until_soon(lambda: waits == 1)  # noqa: B023 - waited for at once
        ahead = len(b"".join(sent))
        assert ahead in (0, SLICE_OCTETS) and (way == "execute" or upstream.in_flight == 1)
        for _ in range(len(LONG) // SLICE_OCTETS + 2):
            may_go_on.release()
        await until_soon(lambda: sent and sent[-1].endswith(b"FLAGS\r\n"))  # noqa: B023
        whole = b"".join(sent)
        tag = whole.partition(b" ")[0]
        assert whole == tag + LONG[1:] and max(map(len, sent)) == SLICE_OCTETS
        upstream.received(tag + b" OK done\r\n")
        await asked
        assert upstream.is_at_rest


def test_what_is_written_right_is_not_copied() -> None:
    text = b"a SEARCH TEXT {3+}\r\nabc SUBJECT {2+}\r\nde\r\n"
    assert non_synchronising(text) is text
    assert non_synchronising(text.replace(b"3+", b"3")) == text
    assert non_synchronising(text.replace(b"2+", b"2")) == text
