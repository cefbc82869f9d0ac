"""The kit itself: ports that are nobody else's, programs that leave nothing behind, peers that read what is there."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from tests.kit.peer import BlockingPeer, Deflate, Peer
from tests.kit.ports import free_port, free_port_base, ports_held
from tests.kit.process import ROOT, Program
from tests.kit.toml import to_toml
from tests.kit.waiting import turns, until, until_soon

OTHERS = "from tests.kit.ports import free_port_base; import os; os.getpid = lambda: {pid}; print(free_port_base(50))"


def test_a_port_is_given_once() -> None:
    first = free_port_base(50)
    second = free_port_base(50)
    assert not set(range(first, first + 50)) & set(range(second, second + 50))
    assert free_port() not in {*range(first, first + 50), *range(second, second + 50)}


def test_another_run_that_looks_at_the_same_ports_gets_others() -> None:
    ours = {
        port for base in (free_port_base(50) for _ in range(5)) for port in range(base, base + 50)
    }
    code = OTHERS.format(pid=os.getpid())  # it begins to look where this process does
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert not ours & set(range(int(said.stdout), int(said.stdout) + 50))


def test_ports_in_use_are_passed_over_and_held_ones_come_back() -> None:
    with ports_held(3) as base:
        pass
    with socket.create_server(("127.0.0.1", base + 1)), ports_held(3) as other:
        assert base + 1 not in range(other, other + 3)
    with ports_held(3) as again:
        assert again == base


def test_a_program_ends_with_all_that_it_started(tmp_path: Path) -> None:
    command = ["bash", "-c", "sleep 1000 & echo child $!; wait"]
    with Program(command, tmp_path / "log") as program:
        program.until_said("child")
        child = int(program.said().split()[1])
        assert Path(f"/proc/{child}").exists()
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


def test_who_waits_for_a_program_that_dies_is_told_what_it_said(tmp_path: Path) -> None:
    program = Program(["bash", "-c", "echo no luck; exit 3"], tmp_path / "log").start()
    with pytest.raises(AssertionError, match="no luck"):
        program.until_said("ready")
    with pytest.raises(AssertionError, match="no luck"):
        program.until_open("127.0.0.1", free_port())
    assert program.stop() == 3


def test_a_configuration_is_read_as_it_was_meant() -> None:
    sections = {
        "node": {
            "name": 'a "b" \\ ü',
            "data": Path("/d"),
            "drain_timeout_s": 1.5,
            "left_out": None,
        },
        'servers."be1.test"': {"imap": 143, "users": ["a", "b"], "on": True, "none": []},
    }
    assert tomli.loads(to_toml(sections)) == {
        "node": {"name": 'a "b" \\ ü', "data": "/d", "drain_timeout_s": 1.5},
        "servers": {"be1.test": {"imap": 143, "users": ["a", "b"], "on": True, "none": []}},
    }


async def test_a_coroutine_is_a_test(tmp_path: Path) -> None:
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    assert tmp_path.is_dir()
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await turns()
    assert seen == [1]
    asyncio.get_running_loop().call_later(0.01, seen.append, 2)
    assert await until_soon(lambda: len(seen) == 2)


async def scripted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says all kinds of things, then the same deflated."""
    writer.write(b"* OK hello\r\n")
    while line := await reader.readline():
        tag = line.split()[0]
        writer.write(b"* 1 FETCH (BODY[] {7}\r\na\r\nb {1} UID {2+}\r\n12 X)\r\n")
        if tag == b"m":
            writer.write(b'm MAILBOX "a" {3+}\r\nb!c "OK"\r\n')
        writer.write(b"250-one\r\n250 two\r\n" if tag == b"lmtp" else tag + b" OK done\r\n")
        if b"COMPRESS" in line:
            deflate = Deflate()
            heard = deflate.unpack(await reader.readuntil(b"\xff\xff"))
            writer.write(
                deflate.pack(b"* LITERAL {3}\r\nx\r\n\r\n" + heard.split()[0] + b" OK ill\r\n")
            )
    writer.close()


async def test_a_peer_reads_lines_and_messages() -> None:
    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    async with server:
        peer = await Peer.at(server.sockets[0].getsockname()[1])
        assert await peer.line() == b"* OK hello"
        fetched = b"* 1 FETCH (BODY[] {7}\r\na\r\nb {1} UID {2+}\r\n12 X)"
        assert await peer.ask(b"a FETCH") == [fetched, b"a OK done"]
        assert await peer.ok("NOOP") == [fetched]
        row = b'm MAILBOX "a" {3+}\r\nb!c "OK"'
        assert await peer.ask(b"m LIST") == [fetched, row, b"m OK done"]
        peer.send(b"lmtp\r\n")
        assert await peer.message() == fetched
        assert await peer.reply() == b"250 two"
        assert (await peer.ask(b"c COMPRESS DEFLATE"))[-1] == b"c OK done"
        peer.deflate = Deflate()
        assert await peer.ask(b"d NOOP") == [b"* LITERAL {3}\r\nx\r\n", b"d OK ill"]
        peer.writer.write_eof()
        assert await peer.line() == b""


async def test_a_blocking_peer_does_the_same() -> None:
    def talk(port: int) -> None:
        with BlockingPeer("127.0.0.1", port) as peer:
            assert peer.line() == "* OK hello"
            fetched = "* 1 FETCH (BODY[] {7}\r\na\r\nb {1} UID {2+}\r\n12 X)"
            assert peer.ask("a FETCH") == [fetched, "a OK done"]
            assert peer.ok("NOOP") == [fetched]
            peer.send("lmtp\r\n")
            assert peer.message() == fetched
            assert peer.reply() == "250 two"
            peer.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(AssertionError, match="closed"):
                peer.line()

    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    async with server:
        await asyncio.to_thread(talk, server.sockets[0].getsockname()[1])
