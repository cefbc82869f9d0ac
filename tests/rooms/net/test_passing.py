"""A backend goes while what it has sent waits for a turn, or for the client: all is passed on, and then the end told."""

from types import SimpleNamespace
from typing import Any, cast

from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import ImapUpstream
from murder.session.imap_client import STEPS
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


async def test_the_end_is_told_behind_what_has_filled_the_client_last() -> None:
    said = b"* BAD news\r\n" * (STEPS + STEPS // 2)
    client = Filled(len(said))
    upstream = ImapUpstream(cast(Any, SimpleNamespace(server="be.test")), client, 60, 1000)
    upstream.connection = cast(
        Any,
        SimpleNamespace(
            is_plain=False,
            is_lost=True,  # no more is read of it
            write=lambda _: None,
            pause_reading=lambda: None,
            resume_reading=lambda: None,
            transport=SimpleNamespace(is_reading=lambda: False),
        ),
    )
    upstream.passes_unsolicited = True
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
