"""A connection that opens without a task: what becomes of one that nobody takes, and of one that nobody wants any more, in
either event loop."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
import uvloop

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.outgoing.upstream import Address
from murder.net.sweep import Sweep
from murder.roles.frontend.entering import Entering
from tests.kit.waiting import turns, until_soon

LOOPS: Final = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


class Goer(Entering):
    """One login."""

    def __init__(self, host: str, port: int, loop: Any = None) -> None:
        sweep = Sweep(asyncio.get_running_loop())
        self.failures: list[UpstreamFailure] = []
        self.noted: list[UpstreamFailure] = []  # of which others hear
        limits = SimpleNamespace(connect_timeout_s=60.0, upstream_login_timeout_s=60.0)
        upstreams = SimpleNamespace(failed=self.noted.append)
        frontend = SimpleNamespace(config=limits, upstreams=upstreams)
        self.dialogue: Any = SimpleNamespace(
            loop=loop or sweep.loop, sweep=sweep, frontend=frontend
        )
        self.address = Address("be1.test", host, port, "none", "be1.test", "external")
        self.set_out()

    @property
    def has_connection(self) -> bool:
        return self._has_connection

    def received(self, data: bytes) -> None:
        pass

    def _fail(self, failure: UpstreamFailure) -> None:
        self.give_up()
        self.failures.append(failure)


def run(make_loop: Callable[[], asyncio.AbstractEventLoop], scene: Awaitable[None]) -> None:
    """With nothing left for the loop to tell."""
    problems: list[dict[str, Any]] = []

    async def heard() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, facts: problems.append(facts))
        await scene

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(heard(), 30))
    assert not problems


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", UpstreamKind.CONNECT),
        ("x" * 70 + ".test", UpstreamKind.CONNECT),  # no name can be so
    ],
)
def test_a_server_that_cannot_be_reached(
    make_loop: Callable[[], asyncio.AbstractEventLoop], host: str, kind: UpstreamKind
) -> None:
    with socket.socket() as unheard:  # bound, and nobody listens
        unheard.bind(("127.0.0.1", 0))

        async def scene() -> None:
            goer = Goer(host, unheard.getsockname()[1])
            assert not goer.failures  # not before who asks has got it
            await until_soon(lambda: bool(goer.failures))
            assert [failure.kind for failure in goer.failures] == [kind] and goer.noted
            assert not goer.has_connection

        run(make_loop, scene())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_one_that_is_given_up_is_not_heard_of_again(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """At once, in each of the turns in which it is made, and when it stands."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]

        async def scene() -> None:
            loop = asyncio.get_running_loop()
            for passed in range(12):
                goer = Goer("127.0.0.1", port)
                for _ in range(passed):
                    await asyncio.sleep(0)
                goer.give_up()
                assert not goer.failures
            goer = Goer("127.0.0.1", port)
            await until_soon(lambda: goer.has_connection)
            goer.give_up()
            await turns()
            assert not goer.failures and not goer.noted
            while True:  # the other ends of all that came about are closed
                try:
                    peer, _ = listening.accept()
                except BlockingIOError:
                    break
                peer.setblocking(False)
                with peer:
                    try:
                        assert await loop.sock_recv(peer, 1) == b""
                    except ConnectionResetError:
                        pass

        run(make_loop, scene())


async def test_one_that_is_given_up_as_something_came_about_begins_nothing_more() -> None:
    """What it waited for is there, in that turn the client goes: no server is called."""
    loop = asyncio.get_running_loop()
    was_there, connected = loop.create_future(), loop.create_future()
    steps: list[str] = []

    async def create_connection(*_: object, **__: object) -> None:
        await was_there
        steps.append("it is called")
        await connected

    calling = SimpleNamespace(create_connection=create_connection, time=loop.time)
    goer = Goer("127.0.0.1", 143, calling)
    was_there.set_result(None)
    goer.give_up()
    await turns()
    assert not steps and not goer.failures
