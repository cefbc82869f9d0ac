"""A demo from start to stop, and the socket by which `murder demo node` reaches it."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from murder.admin.demo.people import await_frontends, make_inboxes, make_passwords
from murder.admin.demo.plan import MASTER, Options, describe, members_of, nodes_of, prepare
from murder.admin.demo.process import MemberProcess, NodeProcess
from murder.errors import Code, Refusal
from murder.net.own_folder import short_path
from murder.pki.authority import write_durably

CONTROL_SOCKET: Final = "control.sock"  # `operate.running.nodes` knows a demo by it
STATE_FILE: Final = "demo.json"
LOCK_FILE: Final = "lock"
MAX_REQUEST_OCTETS: Final = 4096


class Demo:
    """The nodes of one demo."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.nodes = nodes_of(options)
        self.processes: dict[str, NodeProcess | MemberProcess] = {
            node.label: NodeProcess(node) for node in self.nodes
        }
        self._members = [MemberProcess(planned, options) for planned in members_of(options)]
        self.processes |= {member.node.label: member for member in self._members}
        self._say = say
        self._busy = asyncio.Lock()  # one act on a node at a time

    def description(self) -> dict[str, object]:
        """What `--json` prints; also in the folder, with the pids as they are now."""
        pids = {label: process.pid for label, process in self.processes.items()}
        return describe(self.options, self.nodes, pids)

    async def start(self) -> None:
        """All nodes up, users made, mail reachable. Raises Refusal, UpstreamFailure, ConfigError."""
        prepare(self.options, self.nodes)
        await asyncio.gather(*(member.start() for member in self._members))
        await make_passwords(self.options, self.nodes[0])
        await self._start_all(are_masters=True)
        await self._start_all(are_masters=False)
        await make_inboxes(self.options, self.nodes)
        await await_frontends(self.options, self.nodes)
        self._write_state()

    async def _start_all(self, *, are_masters: bool) -> None:
        nodes = [node for node in self.nodes if node.has(MASTER) is are_masters]
        wanted = [self.processes[node.label] for node in nodes]
        await asyncio.gather(*(process.start() for process in wanted))

    async def stop(self) -> None:
        """Stop everything, clients' servers first, masters last; nothing is left running."""
        for wanted in ("frontend", "backend", MASTER):
            stopped = [process for process in self.processes.values() if process.node.has(wanted)]
            others = [
                running for running in stopped if wanted == MASTER or not running.node.has(MASTER)
            ]
            await asyncio.gather(*(process.stop() for process in others))
        await asyncio.gather(*(member.stop() for member in self._members))

    async def act(self, verb: str, label: str) -> dict[str, object]:
        """What `murder demo node` asked for. Raises Refusal."""
        if label not in self.processes:
            known = ", ".join(self.processes)
            raise Refusal(Code.NONEXISTENT, f"there is no node {label!r}; nodes are {known}")
        process = self.processes[label]
        async with self._busy:
            await process.act(verb)
        self._write_state()
        self._say(f"{label}: {verb}")
        return {"node": label, "pid": process.pid, "running": process.is_running}

    def _write_state(self) -> None:
        text = json.dumps(self.description()) + "\n"
        write_durably(self.options.folder / STATE_FILE, text.encode(), 0o600)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of `murder demo node`: a line of JSON in, one out."""
        try:
            request = json.loads(await reader.readline())
            answer = await self.act(str(request["verb"]), str(request["node"]))
        except Refusal as error:
            answer = {"error": error.text}
        except (ValueError, KeyError, TypeError) as error:
            answer = {"error": f"that was no request: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def run(options: Options, ready: Callable[[Demo], None], say: Callable[[str], None]) -> None:
    """Start, call `ready`, stay until SIGTERM or SIGINT, stop. Raises what kept it from starting."""
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    with _only_one(options.folder):
        demo = Demo(options, say)
        path = options.folder / CONTROL_SOCKET
        path.unlink(missing_ok=True)
        with short_path(path) as short:
            server = await asyncio.start_unix_server(demo.answer, short, limit=MAX_REQUEST_OCTETS)
        try:
            if await _started(demo, ending):
                ready(demo)
                await _stay(demo, ending, say)
        finally:
            server.close()
            path.unlink(missing_ok=True)
            await demo.stop()


async def _started(demo: Demo, ending: asyncio.Event) -> bool:
    """Whether the start came to its end before it was called off."""
    start = asyncio.ensure_future(demo.start())
    called_off = asyncio.ensure_future(ending.wait())
    await asyncio.wait((start, called_off), return_when=asyncio.FIRST_COMPLETED)
    called_off.cancel()
    if not start.done():
        start.cancel()
        await asyncio.wait((start,))
        return False
    start.result()
    return True


async def _stay(demo: Demo, ending: asyncio.Event, say: Callable[[str], None]) -> None:
    """Until told to end; a node that ends by itself is told of, and not restarted."""
    ended: set[int] = set()
    while not ending.is_set():
        for label, process in demo.processes.items():
            if not process.is_running and process.pid not in ended:
                ended.add(process.pid)
                say(f"{label} has ended (its log: {process.node.log_file})")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), 0.5)


async def ask(folder: Path, verb: str, label: str) -> dict[str, object]:
    """Have the demo that runs in `folder` act on a node. Raises Refusal."""
    try:
        with short_path(folder / CONTROL_SOCKET) as short:
            reader, writer = await asyncio.open_unix_connection(short)
    except PermissionError:
        whose = _owner_of(folder)
        text = f"the demo in {folder} is {whose}'s: run this as {whose}, or as root"
        raise Refusal(Code.NO_PERMISSION, text) from None
    except OSError:
        raise Refusal(Code.UNAVAILABLE, f"no demo runs in {folder}") from None
    writer.write(json.dumps({"verb": verb, "node": label}).encode() + b"\n")
    line = await reader.readline()
    writer.close()
    if not line:
        raise Refusal(Code.UNAVAILABLE, f"the demo in {folder} has ended")
    answer: dict[str, object] = json.loads(line)
    if "error" in answer:
        raise Refusal(Code.CANNOT, str(answer["error"]))
    return answer


def _owner_of(folder: Path) -> str:
    """Of the folder, or, where even that may not be looked at, of the first above that can be."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError, KeyError):
            return place.owner()
    return "another user"


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder against a second demo; the lock ends with the process."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refusal(Code.IN_USE, f"a demo runs already in {folder}; name another --dir") from None
    finally:
        os.close(descriptor)
