"""One node of a demo, or a member of its etcd, as a process group: started, stopped, killed, frozen, thawed. Never restarted
by itself."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from murder.__main__ import command
from murder.admin.demo.plan import HOST, Member, Node, Options, members_of
from murder.errors import Code, Refusal

READY_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 15.0  # beyond the drain of a demo's nodes
PR_SET_PDEATHSIG: Final = 1
LOG_TAIL_LINES: Final = 5
LOOK_S: Final = 0.05
ETCD: Final = "etcd"
ETCD_FLAGS: Final = (  # as `murder help masters` tells an operator
    *("--heartbeat-interval", "50", "--election-timeout", "500"),
    *("--max-txn-ops", "2048", "--max-request-bytes", "8388608"),
    *("--auto-compaction-mode", "revision", "--auto-compaction-retention", "100000"),
    *("--logger", "zap"),
)


class _Process:
    """A process group."""

    def __init__(self, node: Node | Member) -> None:
        self.node = node
        self._process: asyncio.subprocess.Process | None = None
        self._frozen = False

    @property
    def pid(self) -> int:
        """Its supervisor's; of the last one, where none runs."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def wait(self) -> int:
        """The exit code, when it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def start(self) -> None:
        """Start it and wait until it serves. Raises Refusal with the end of its log where it does not."""
        raise NotImplementedError

    async def _run(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        if self.is_running:
            raise Refusal(Code.CANNOT, f"{self.node.label} runs already")
        with self.node.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._frozen = False

    async def _until_ready(self, ready: Awaitable[None]) -> None:
        ended = asyncio.ensure_future(self.wait())
        is_ready = asyncio.ensure_future(ready)
        try:
            await asyncio.wait(
                (ended, is_ready), timeout=READY_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not is_ready.done():
                why = f"ended with code {ended.result()}" if ended.done() else "does not get ready"
                await self.kill()
                raise Refusal(Code.UNAVAILABLE, f"{self.node.label} {why}:\n{self._end_of_log()}")
        finally:
            ended.cancel()
            is_ready.cancel()

    def _end_of_log(self) -> str:
        lines = self.node.log_file.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([*lines, f"(all of it: {self.node.log_file})"])

    async def stop(self) -> None:
        """SIGTERM, so that it drains; SIGKILL where that takes too long."""
        if not self.is_running:
            return
        self.thaw()
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await self.wait()
        except TimeoutError:
            pass
        await self.kill()  # whoever of the group is left

    async def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._frozen = False
        await self.wait()

    def freeze(self) -> None:
        """SIGSTOP to the whole group: it is there and answers nothing."""
        if not self.is_running:
            raise Refusal(Code.CANNOT, f"{self.node.label} does not run")
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """SIGCONT to the whole group."""
        if self._frozen:
            self._signal(signal.SIGCONT)
        self._frozen = False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def act(self, verb: str) -> None:
        """What `murder demo node VERB` asks for. Raises Refusal."""
        match verb:
            case "start":
                await self.start()
            case "stop":
                await self.stop()
            case "kill":
                await self.kill()
            case "freeze":
                self.freeze()
            case "thaw" | "continue":
                self.thaw()
            case _:
                raise Refusal(Code.CANNOT, f"{verb!r} is none of {', '.join(VERBS)}")


VERBS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "stop": "SIGTERM: it drains and ends.",
        "start": "Start it again.",
        "kill": "SIGKILL to all of its processes.",
        "freeze": "SIGSTOP to all of its processes: it is there and answers nothing.",
        "thaw": "The end of freeze.",
        "continue": "The same as thaw.",
    }
)


class NodeProcess(_Process):
    """One of murder's own nodes."""

    node: Node

    async def start(self) -> None:
        with _ReadySocket() as ready:
            environment = {**os.environ, "NOTIFY_SOCKET": ready.address}
            environment.pop("WATCHDOG_USEC", None)
            words = [*command(), "serve", "--config", str(self.node.config_file)]
            await self._run(words, environment)
            await self._until_ready(ready.wait())


class MemberProcess(_Process):
    """One member of the demo's etcd, which the masters keep their list on."""

    node: Member

    def __init__(self, node: Member, options: Options) -> None:
        super().__init__(node)
        self._cluster = ",".join(
            f"{member.label}={member.peer_url}" for member in members_of(options)
        )

    async def start(self) -> None:
        """Until it answers, which it does when it knows a leader. Raises Refusal."""
        member = self.node
        program = shutil.which(ETCD)
        if program is None:
            raise Refusal(Code.UNAVAILABLE, NO_ETCD)
        words = [program, "--name", member.label, "--data-dir", str(member.folder / "data")]
        words += ["--listen-client-urls", member.url, "--advertise-client-urls", member.url]
        words += ["--listen-peer-urls", member.peer_url, "--initial-cluster", self._cluster]
        words += ["--initial-advertise-peer-urls", member.peer_url, *ETCD_FLAGS]
        await self._run(words, os.environ)
        await self._until_ready(_healthy(member.port))


NO_ETCD: Final = (
    "murder demo --ha keeps the mailbox list on etcd, and there is no program `etcd` on this host: on Debian or Ubuntu "
    "`apt install etcd-server`, elsewhere https://etcd.io/docs/latest/install/ (3.4.23, or 3.5.14 and later)"
)


async def _healthy(port: int) -> None:
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(b"GET /health HTTP/1.0\r\n\r\n")
                said = await reader.read()
                writer.close()
            if b'"health":"true"' in said:
                return
        await asyncio.sleep(LOOK_S)


def _end_with_parent() -> None:
    """In the child: when the demo is killed, its nodes end too (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class _ReadySocket:
    """Where a node says READY=1, as to systemd (an abstract address: folders may have long names)."""

    def __init__(self) -> None:
        self.address = f"@murder-demo-{secrets.token_hex(8)}"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> "_ReadySocket":
        self._sock.setblocking(False)
        self._sock.bind("\0" + self.address[1:])
        return self

    def __exit__(self, *_error: object) -> None:
        self._sock.close()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        while b"READY=1" not in (await loop.sock_recv(self._sock, 4096)).split(b"\n"):
            pass
