"""A connection that opens without a task: what becomes of one that nobody takes, and of one that nobody wants any more, in
either event loop."""

import asyncio
import resource
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
        self.heard = b""
        limits = SimpleNamespace(connect_timeout_s=60.0, upstream_login_timeout_s=60.0)
        upstreams = SimpleNamespace(failed=self.noted.append)
        frontend = SimpleNamespace(config=limits, upstreams=upstreams)
        self.dialogue: Any = SimpleNamespace(
            loop=loop or sweep.loop, sweep=sweep, frontend=frontend
        )
        self.address = Address("be1.test", host, port, "none", "be1.test", "external")
        self.set_out()

    @property
    def due(self) -> float:
        return self._due

    @property
    def connect_due(self) -> float:
        return self._connect_due

    @property
    def has_connection(self) -> bool:
        return self._has_connection

    def received(self, data: bytes) -> None:
        if self._on_its_way is not None:
            self._take_over()
        self.heard = data

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
            if not host.endswith(".test"):
                assert "Connection refused" in goer.failures[0].text

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


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_server_that_does_not_take_it_is_told_from_one_that_does_not_greet(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nothing tells when it is taken; so that is looked at when the time is over, and begins the time for the greeting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        port = listening.getsockname()[1]

        async def scene() -> None:
            greets = Goer("127.0.0.1", port)
            await until_soon(lambda: greets.has_connection)
            assert greets.look(greets.due - 1.0) == greets.due
            greets.look(greets.due)
            assert "no greeting and login within 60 s" in greets.failures[0].text
            assert greets.failures[0].kind is UpstreamKind.TIMEOUT
            # that one has the only place; the next is not taken
            goer, late = Goer("127.0.0.1", port), Goer("127.0.0.1", port)
            await turns()
            ends_at = goer.connect_due
            assert goer.look(ends_at - 1.0) == ends_at
            assert goer.due == ends_at - 1.0 + 60.0  # for the greeting of one that comes now
            goer.look(ends_at)
            assert "no answer in 60 s" in goer.failures[0].text
            assert goer.failures[0].kind is UpstreamKind.CONNECT
            listening.accept()[0].close()
            listening.setblocking(False)
            taken, _ = await asyncio.get_running_loop().sock_accept(listening)  # as it asks again
            with taken:
                taken.sendall(b"+OK\r\n")
                await until_soon(lambda: late.heard == b"+OK\r\n")
            await until_soon(lambda: bool(late.failures))
            assert late.failures[0].kind is UpstreamKind.LOST

        run(make_loop, scene())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_process_that_may_open_no_more_files_is_told(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scene() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            goer = Goer("127.0.0.1", 143)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not goer.failures
        await until_soon(lambda: bool(goer.failures))
        assert "Too many open files" in goer.failures[0].text

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
