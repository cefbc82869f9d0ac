"""Remote control: nothing is done for who shows no operator's certificate, whatever calls it in whatever order."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from murder import __version__
from murder.config.sections import Config, NodeConfig
from murder.errors import BadSyntax
from murder.log import GATHER_S, gathering, plain_log, set_up
from murder.node.control.node import NodeSocket, ask_node
from murder.node.control.sockets import ControlServer, RemoteControl, ask_local
from murder.serve.mail_log import KIND, MailLog
from murder.trail.lines import Trail, folder_of
from murder.wire.nodes.control_words import (
    Asker,
    AskFigures,
    AskStatus,
    AskTrail,
    parse_control_request,
)


@dataclass(frozen=True)
class Certificate:
    name: str
    roles: frozenset[str]


@dataclass
class Stranger:
    """A connection over TLS."""

    certificate: Certificate | None
    written: list[bytes] = field(default_factory=list)
    closed: bool = False
    cid: str = "1"
    peer: str = "192.0.2.1"

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self, _: float) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def became_known(self) -> None:
        pass


@pytest.mark.parametrize("roles", [None, {"backend"}, {"frontend", "mupdate"}])
async def test_a_stranger_gets_nothing_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roles: set[str] | None
) -> None:
    asked: list[object] = []

    async def ask_local(_: Path, request: object, by: Asker) -> Any:
        asked.append(request)
        assert by == Asker("op", "192.0.2.1")
        yield {"done": True}

    monkeypatch.setattr("murder.node.control.sockets.ask_local", ask_local)

    certificate = None if roles is None else Certificate("be1", frozenset(roles))
    stranger: Any = Stranger(certificate)
    control = RemoteControl(stranger, tmp_path)
    control.received(b'{"do": "kick", "user": "x"}\n')  # it came before `begin`
    assert control._task is None
    await control._run(b'{"do": "kick", "user": "x"}')
    control.begin()
    assert asked == [] and stranger.closed
    assert all(b"operator" in line for line in stranger.written)

    operator: Any = Stranger(Certificate("op", frozenset({"operator"})))
    control = RemoteControl(operator, tmp_path)
    control.begin()
    control.received(b'{"do": "status"}\n')
    assert control._task is not None
    await control._task
    assert asked == [AskStatus()]


@dataclass
class Gone:
    """A stream whose other end hung up after so many answers; uvloop raises no OSError when one writes on."""

    left: int
    written: int = 0

    def is_closing(self) -> bool:
        return self.written > self.left

    def write(self, _: bytes) -> None:
        if self.is_closing():
            raise RuntimeError("unable to perform operation on <UnixTransport closed=True>")
        self.written += 1

    def get_extra_info(self, _: str) -> None:
        return None

    async def drain(self) -> None:
        if self.is_closing():
            raise ConnectionResetError("Connection lost")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("left", [0, 1])
async def test_who_asks_may_hang_up_before_the_end(tmp_path: Path, left: int) -> None:
    config = Config(tmp_path / "murder.toml", node=NodeConfig(name="n", data=tmp_path))
    control = ControlServer(config, "backend", 0, object(), list)
    reader = asyncio.StreamReader()
    reader.feed_data(b'{"do": "status"}\n')
    gone: Any = Gone(left)
    await control._serve(reader, gone)
    assert gone.written == left + 1


@pytest.mark.parametrize("length", [1, 90])
async def test_however_long_its_folder_is_called_it_is_asked(tmp_path: Path, length: int) -> None:
    data = tmp_path / ("x" * length)
    data.mkdir()
    config = Config(tmp_path / "murder.toml", node=NodeConfig(name="n", data=data))
    process, node = ControlServer(config, "backend", 0, object(), list), NodeSocket(config, {})
    await process.start()
    await node.start()
    answers = [answer async for answer in ask_local(data / "control", AskStatus())]
    assert [answer.get("role") for answer in answers] == ["backend", "backend"]  # and `done`
    refused = await ask_node(data, AskStatus())
    assert refused == {"no": "'status' is no request"}  # not one of the node as a whole
    process.stop()
    node.stop()
    assert await ask_node(data, AskStatus()) is None
    assert list((data / "control").iterdir()) == []


async def test_where_the_disk_is_gone_all_else_is_told(tmp_path: Path) -> None:
    data, moved = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    config = Config(tmp_path / "murder.toml", node=NodeConfig(name="n", data=data))
    process = ControlServer(config, "backend", 0, object(), list)
    await process.start()
    data.rename(moved)  # the socket goes along
    (answer, _) = [answer async for answer in ask_local(moved / "control", AskFigures())]
    assert answer["version"] == __version__ and "numbers" in answer
    assert "disk_size" not in answer and "disk_free" not in answer
    moved.rename(data)
    (answer, _) = [answer async for answer in ask_local(data / "control", AskFigures())]
    assert 0 < answer["disk_free"] <= answer["disk_size"]
    process.stop()


async def test_a_trace_has_what_was_answered_just_now_by_any_worker(tmp_path: Path) -> None:
    """Lines wait for each other for a moment."""
    config = Config(tmp_path / "murder.toml", node=NodeConfig(name="n", data=tmp_path))
    process, other = (ControlServer(config, "backend", number, object(), list) for number in (0, 1))
    loop, mail_logs = asyncio.get_running_loop(), [MailLog(), MailLog()]
    for number, mail_log in enumerate(mail_logs):
        trail = Trail(folder_of(tmp_path), KIND, "backend", number)
        trail.keep(1_000_000)
        mail_log.keep(trail)
    set_up("error", "json", node="n")
    with gathering(lambda _delay_s, _call: None):  # it waits until somebody asks
        for number in range(3):
            mail_logs[0].info("message.delivered", {"id": f"i{number}"})
        await process.start()
        await other.start()
        loop.call_later(GATHER_S, mail_logs[1].info, "message.delivered", {"id": "i3"})
        loop.call_later(GATHER_S, plain_log.flush)
        asked = AskTrail(KIND, ("i0", "i1", "i2", "i3"))
        answers = [answer async for answer in ask_local(tmp_path / "control", asked)]
        process.stop()
        other.stop()
    assert [answer["line"]["id"] for answer in answers if "line" in answer] == [
        f"i{n}" for n in range(4)
    ]


def test_nesting_without_end_is_no_request() -> None:
    with pytest.raises(BadSyntax):
        parse_control_request(b"[" * 60_000)
