"""POP3 logins in few steps, at a backend that is known, and what comes of whatever does not pass."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from murder.config.sections import AuthConfig
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import inbox_of
from murder.net import bulk, connection
from murder.net.sweep import Sweep
from murder.roles.frontend import pop3
from murder.roles.mupdate.database.change import PutEntry
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import RIGHTS, Running, Speak, running_frontend
from tests.rooms.frontend.test_calls import USER, Remembering

GREETING = b"+OK ready\r\n"
IN = b"+OK in\r\n"
GONE = b""
SILENT = b"..."


class Backend:
    """Each connection in turn is answered by its script: a greeting, then what the login gets."""

    def __init__(self, *scripts: Sequence[bytes]) -> None:
        self.scripts = [(GREETING, IN), *scripts]
        self.said: list[list[bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting, answer = self.scripts.pop(0)
        heard: list[bytes] = []
        self.said.append(heard)
        if greeting == SILENT:
            await reader.read()
            return
        writer.write(greeting)
        while greeting != GONE and (line := await reader.readline()):
            heard.append(line.split()[0])
            if heard[-1] == b"CAPA":
                writer.write(b"+OK\r\nUIDL\r\n.\r\n")
            elif heard[-1] == b"RETR":
                writer.write(b"+OK\r\n" + b"x" * 1_000_000 + b"\r\n.\r\n")
            elif heard[-1] != b"AUTH":
                writer.write(b"+OK relayed " + line)
            elif answer != SILENT:
                writer.write(answer)
            if heard[-1] == b"QUIT":
                return


def counted(running: Running) -> dict[str, int]:
    assert running.role.frontend is not None
    return running.role.frontend.gate.connections.counter._of


async def asked(peer: Peer, line: bytes) -> bytes:
    peer.send(line + b"\r\n")
    return await peer.line()


async def named(running: Running) -> Peer:
    """Somebody who has said who they are."""
    peer = await Peer.at("127.0.0.1", running.ports["pop3"])
    await peer.line()
    assert await asked(peer, b"USER ana") == b"+OK Now the password"
    return peer


async def entered(running: Running) -> tuple[Peer, bytes]:
    """One word at a time, as clients do."""
    peer = await named(running)
    return peer, await asked(peer, b"PASS secret")


def serving(
    folder: Path, backend: Speak, auth: AuthConfig | None = None
) -> AbstractAsyncContextManager[Running]:
    is_silent = isinstance(backend, Backend) and any(SILENT in one for one in backend.scripts)
    return running_frontend(
        folder,
        {"be1.test": ("pop3", backend)},
        {USER: "be1.test"},
        auth=auth or AuthConfig(),
        parts=Remembering(),
        upstream_login_timeout_s=1.0 if is_silent else 20.0,
    )


@pytest.mark.parametrize(
    ("scripts", "answer", "heard"),
    [
        ([(GREETING, IN)], b"+OK Logged in", [b"AUTH"]),
        ([(GREETING, b"+OK in\r\n+OK early\r\n")], b"+OK Logged in", [b"AUTH"]),
        ([(GONE, b"")], b"-ERR [SYS/TEMP]", []),
        ([(SILENT, b"")], b"-ERR [SYS/TEMP]", []),
        ([(GREETING, SILENT)], b"-ERR [SYS/TEMP]", [b"AUTH"]),
        # the long way
        ([(b"-ERR not now\r\n", IN)] * 2, b"-ERR [SYS/TEMP]", []),
        ([(GREETING * 2, IN), (GREETING, IN)], b"+OK Logged in", []),
        ([(b"x" * 5000, IN), (GREETING, IN)], b"+OK Logged in", []),
        ([(GREETING, b"-ERR [IN-USE] somebody\r\n")] * 2, b"-ERR [IN-USE] somebody", [b"AUTH"]),
        ([(GREETING, b"-ERR [AUTH] who?\r\n")] * 2, b"-ERR [SYS/TEMP]", [b"AUTH"]),
    ],
)
async def test_a_backend_that_is_known(
    tmp_path: Path, scripts: list[tuple[bytes, bytes]], answer: bytes, heard: list[bytes]
) -> None:
    backend = Backend(*scripts, (GREETING, IN))
    async with serving(tmp_path, backend) as running:
        first, said = await entered(running)
        assert said == b"+OK Logged in"
        assert backend.said[0] == [b"CAPA", b"AUTH"]  # the long way: nobody knew it
        peer, said = await entered(running)
        assert said.startswith(answer), said
        assert backend.said[1] == heard
        assert len(backend.said) == 1 + len(scripts)
        if said.startswith(b"+OK"):
            assert counted(running) == {USER: 2}
            if b"early" in scripts[0][1]:
                assert await peer.line() == b"+OK early"
            assert await asked(peer, b"STAT") == b"+OK relayed STAT"
            assert await asked(peer, b"QUIT") == b"+OK relayed QUIT"
            assert not await peer.reader.read()
        else:  # they are still there, are counted nowhere, and may come again
            assert counted(running) == {USER: 1}
            assert await asked(peer, b"USER ana") == b"+OK Now the password"
            assert await asked(peer, b"PASS secret") == b"+OK Logged in"
        await peer.close()
        await first.close()
        await until_soon(lambda: not counted(running))


async def test_who_brings_much_stands_in_line_in_late_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[asyncio.AbstractEventLoop] = []

    def note(loop: asyncio.AbstractEventLoop, _: float) -> bool:
        late.append(loop)
        return True

    async with serving(tmp_path, Backend((GREETING, IN))) as running:
        first, _ = await entered(running)
        peer, _ = await entered(running)
        monkeypatch.setattr(bulk, "is_late", note)
        assert await asked(peer, b"RETR 1") == b"+OK"
        assert len(await peer.line()) == 1_000_000
        assert late
        await peer.close()
        await first.close()


async def test_where_many_take_nothing_mail_is_written_less_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both ways in."""
    async with serving(tmp_path, Backend((GREETING, IN))) as running:
        assert running.role.frontend is not None
        peers = [(await entered(running))[0] for _ in range(2)]
        monkeypatch.setattr(connection, "CROWD", 0)
        for peer in peers:
            assert await asked(peer, b"RETR 1") == b"+OK"
            assert len(await peer.line()) == 1_000_000
        assert [one.connection.is_narrow for one in running.role.frontend.sessions] == [True] * 2
        for peer in peers:
            await peer.close()


async def test_who_comes_through_a_proxy_is_said_to_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = AuthConfig(client_address_from=(ip_network("127.0.0.0/8"),))
    async with serving(tmp_path, Backend((GREETING, IN)), auth) as running:
        first, _ = await entered(running)
        logged: list[dict[str, object]] = []
        monkeypatch.setattr(
            pop3, "plain_log", SimpleNamespace(info=lambda _, facts: logged.append(facts))
        )
        peer = await Peer.at("127.0.0.1", running.ports["pop3"])
        await peer.line()
        await asked(peer, b"XCLIENT ADDR=192.0.2.7 SESSION=s")
        await asked(peer, b"USER ana")
        assert await asked(peer, b"PASS secret") == b"+OK Logged in"
        (facts,) = logged
        said = {key: facts[key] for key in ("peer", "through", "session")}
        assert said == {"peer": "192.0.2.7", "through": "127.0.0.1", "session": "s"}
        await peer.close()
        await first.close()


async def test_what_is_said_meanwhile_goes_to_the_backend(tmp_path: Path) -> None:
    backend = Backend((GREETING, IN))
    async with serving(tmp_path, backend) as running:
        first, _ = await entered(running)
        peer = await named(running)
        peer.send(b"PASS secret\r\n")
        peer.send(b"STAT\r\nNOOP\r\n")
        assert await peer.line() == b"+OK Logged in"
        assert await peer.line() == b"+OK relayed STAT"
        assert await peer.line() == b"+OK relayed NOOP"
        await peer.close()
        await first.close()


async def test_files_of_tls_that_are_not_there_behind_a_reload_are_told(tmp_path: Path) -> None:
    """At once, where the session had ended without a word, and the long way, where that was a bug of ours in the log."""
    backend = Backend()
    async with serving(tmp_path, backend) as running:
        peer, said = await entered(running)
        assert said == b"+OK Logged in"
        await peer.close()
        before = running.config.servers["be1.test"]
        section = replace(before, tls="implicit", ca=tmp_path / "nowhere.pem")
        running.role.reload(replace(running.config, servers={"be1.test": section}))
        for _ in range(2):
            peer, said = await entered(running)
            assert said.startswith(b"-ERR [SYS/TEMP]"), said
            await peer.close()
        await until_soon(lambda: not counted(running))
        assert len(backend.said) == 1


async def test_who_goes_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    backend = Backend((GREETING, SILENT))
    async with serving(tmp_path, backend) as running:
        first, _ = await entered(running)
        peer = await named(running)
        peer.send(b"PASS secret\r\n")
        await until_soon(lambda: len(backend.said) == 2 and backend.said[1] == [b"AUTH"])
        assert counted(running) == {USER: 2}
        peer.writer.transport.abort()
        frontend = running.role.frontend
        assert frontend is not None
        await until_soon(lambda: len(frontend.sessions) == 1)
        assert counted(running) == {USER: 1}
        await first.close()


async def test_a_name_that_took_the_long_way_is_no_obstacle_to_the_short_one(
    tmp_path: Path,
) -> None:
    """A name in UTF-8 (RFC 6856) is taken by all steps, and the password behind it comes as ever."""
    async with serving(tmp_path, Backend()) as running:
        peer = await Peer.at("127.0.0.1", running.ports["pop3"])
        await peer.line()
        for name in ("anä".encode(), b"an\xff"):
            await asked(peer, b"USER " + name)
            assert (await asked(peer, b"PASS wrong")).startswith(b"-ERR")
        assert await asked(peer, b"NOOP") != b""


@pytest.mark.parametrize("answer", [b"+OK Updated\r\n", b"-ERR not from you\r\n"])
async def test_a_backend_that_believes_us_is_told_whose_connection_it_is(
    tmp_path: Path, answer: bytes
) -> None:
    connections: list[list[bytes]] = []

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard: list[bytes] = []
        connections.append(heard)
        writer.write(b"+OK [XCLIENT] ready\r\n")
        while line := await reader.readline():
            heard.append(line.rstrip())
            replies = {b"CAPA": b"+OK\r\nXCLIENT\r\n.\r\n", b"XCLIENT": answer}
            writer.write(replies.get(line.split()[0], IN))

    async with running_frontend(
        tmp_path, {"be1.test": ("pop3", backend)}, {USER: "be1.test"}, parts=Remembering()
    ) as running:
        for number in range(2):
            peer, said = await entered(running)
            assert said == b"+OK Logged in"
            port = peer.writer.get_extra_info("sockname")[1]
            words = [line.split()[0] for line in connections[-1]]
            assert words == [b"CAPA", b"XCLIENT", b"AUTH"][number:]
            xclient = connections[-1][-2].split()
            assert xclient[:3:2] == [b"XCLIENT", b"PORT=%d" % port]
            assert (xclient[1], xclient[4]) == (b"ADDR=127.0.0.1", b"TTL=5")
            assert xclient[3].startswith(b"SESSION=")
            await peer.close()
        # where it does not after all, the second took the long way behind the short one
        assert len(connections) == (2 if answer.startswith(b"+OK") else 3)


async def test_a_client_who_goes_first_costs_no_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before a Cyrus, which ends a while behind its answer to QUIT: there were two for each session."""
    goes, is_asked, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while line := await reader.readline():
            writer.write(b"+OK\r\nUIDL\r\n.\r\n" if line.startswith(b"CAPA") else IN)
            if line.startswith(b"QUIT"):
                is_asked.set()
                await goes.wait()
                return

    made: list[object] = []
    call_later = loop.call_later

    def note(delay_s: float, callback: Any, *given: Any, **named: Any) -> asyncio.TimerHandle:
        made.append(callback)
        return call_later(delay_s, callback, *given, **named)

    async with serving(tmp_path, speak) as running:
        assert running.role.frontend is not None
        sessions = running.role.frontend.sessions
        for _ in range(2):  # the long way, the short one
            goes.clear()
            is_asked.clear()
            peer, said = await entered(running)
            assert said == b"+OK Logged in"
            monkeypatch.setattr(loop, "call_later", note)
            assert await asked(peer, b"QUIT") == b"+OK in"
            await is_asked.wait()
            peer.writer.close()
            await until_soon(lambda: all(one.connection._peer_has_ended for one in sessions))
            goes.set()
            await until_soon(lambda: not counted(running))
            monkeypatch.undo()
    ours = [one for one in made if getattr(one, "__module__", "").startswith("murder.")]
    # which all have in common
    assert all(isinstance(getattr(one, "__self__", None), Sweep) for one in ours), ours


async def test_who_has_moved_and_a_server_that_is_elsewhere_now_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way is known again, and no longer than the list and the configuration are what they were."""
    gone = b"-ERR [SYS/PERM] not here\r\n"
    first = Backend((GREETING, IN), (GREETING, gone))
    second, third = Backend((GREETING, IN), (GREETING, IN)), Backend()
    backends: dict[str, tuple[str, Speak]] = {
        "be1.test": ("pop3", first),
        "be2.test": ("pop3", second),
        "be3.test": ("pop3", third),
    }

    async def enters() -> bytes:
        peer, said = await entered(running)
        await peer.close()
        return said

    async with running_frontend(
        tmp_path, backends, {USER: "be1.test"}, parts=Remembering()
    ) as running:
        moved = MailboxEntry(inbox_of(USER), EntryState.ACTIVE, b"be2.test!default", RIGHTS)
        assert [await enters() for _ in range(2)] == [b"+OK Logged in"] * 2
        with monkeypatch.context() as patch:  # another process has written it, a moment ago
            stamp = running.mailboxes.stamp()
            patch.setattr(running.mailboxes, "stamp", lambda: stamp)
            running.mailboxes.commit([PutEntry(moved)])
            assert await enters() == b"+OK Logged in"
        assert first.said == [[b"CAPA", b"AUTH"], [b"AUTH"], [b"AUTH"]]
        assert [await enters() for _ in range(2)] == [b"+OK Logged in"] * 2
        assert second.said == [[b"CAPA", b"AUTH"], [b"AUTH"], [b"AUTH"]]
        running.mailboxes.commit([PutEntry(moved._replace(state=EntryState.RESERVED))])
        assert (await enters()).startswith(b"-ERR [SYS/TEMP]")  # it is being moved
        running.mailboxes.commit([PutEntry(moved)])
        servers = running.config.servers
        elsewhere = {**servers, "be2.test": servers["be3.test"]}
        running.role.reload(replace(running.config, servers=elsewhere))
        assert await enters() == b"+OK Logged in"
        assert third.said == [[b"AUTH"]]
