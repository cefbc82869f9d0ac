"""What a running node tells an operator, and does for them: a socket a process, JSON lines, one request a connection.

Local: `[node] data`/control/ROLE-N.sock, for who may open it (mode 0600). Remote: `[node] control`, over TLS, for
holders of an operator's certificate (`murder ca issue NAME --role operator`); it asks all local sockets. Requests:
`status`, `sessions`, `kick`, `trace`, `trail`, `conflicts`, `place`, `probe`.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, cast, runtime_checkable

from murder import __version__
from murder.__main__ import is_replaced
from murder.config import Config, ConfigError
from murder.errors import BadSyntax, Refusal, UpstreamFailure
from murder.log import GATHER_S, logger, recent
from murder.model.protocol import WEB
from murder.net.connection import Connection
from murder.net.listener import Listener
from murder.net.own_folder import make_own_folder, short_path
from murder.net.tap import Traces, behind_tap
from murder.node.control.measured import Memory, descriptors, disk_of
from murder.pki.authority import AuthorityError, flaws_of, read_certificate
from murder.trail import audit
from murder.trail.audit import NODE
from murder.trail.chain import breaks_in
from murder.trail.figures import Figures
from murder.trail.lines import chains_of, files_of, find, newest, stamp
from murder.trail.lines import folder_of as trail_folder
from murder.wire.nodes.control_answers import (
    ChainChecked,
    ConflictShown,
    CopyStage,
    Kicked,
    ListCopied,
    LogLine,
    Probed,
    ProcessFacts,
    RoleFacts,
    SessionShown,
    Status,
    TrailLine,
    shown_of,
)
from murder.wire.nodes.control_words import (
    NOBODY,
    AskChain,
    AskConflicts,
    Asker,
    AskFigures,
    AskLog,
    AskPlace,
    AskProbe,
    AskSessions,
    AskStatus,
    AskTrace,
    AskTrail,
    CopyList,
    Kick,
    NotPlaced,
    Placement,
    Request,
    Wanted,
    format_request,
    parse_asker,
    parse_control_request,
    unknown_request,
)

FOLDER: Final = "control"
MAX_REQUEST: Final = 64 * 1024
LOOK_EVERY_S: Final = 0.1  # a trace is told so often, and looks for new connections of its user
ANSWER_S: Final = 10.0
OPERATOR_ROLE: Final = "operator"
FIRST_WORKER: Final = 0
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group
# Of each kind of lines that a node keeps: what is looked for in which keys
SEARCHED: Final[Mapping[str, Sequence[str]]] = {
    audit.KIND: ("user", "proxy", "arguments*", "wanted*", "mailbox*", "target*"),
    "mail": (
        *("id", "message_id", "sender", "recipient", "saved_as", "reply*"),
        *("user", "copies.place", "messages.place", "messages.to", "messages.message_id"),
    ),
}

Answer = Mapping[str, object]


@runtime_checkable
class Described(Protocol):
    """A client's session that can say what it is."""

    def describe(self) -> SessionShown:
        """For `sessions`."""
        ...

    def say_bye(self, text: str) -> None:
        """In its protocol's words; then it ends."""
        ...


@runtime_checkable
class Reports(Protocol):
    """A role that has something to say of itself."""

    def report(self) -> RoleFacts:
        """For `status`."""
        ...


@runtime_checkable
class Looks(Protocol):
    """A role that asks others before it reports."""

    async def look(self) -> None:
        """Within a few seconds. Raises nothing."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A role that counts what happens."""

    @property
    def figures(self) -> Figures: ...


@runtime_checkable
class HasConflicts(Protocol):
    """A master: who wanted whose mailboxes. A backend: what it has in quarantine."""

    def conflicts(self, forget: bool = False) -> Sequence[ConflictShown]:
        """All it knows; with `forget` they are told for the last time."""
        ...


@runtime_checkable
class Places(Protocol):
    """A frontend: where it would put a new mailbox."""

    async def place(self, request: AskPlace) -> Placement | NotPlaced | None:
        """None where it has no such policy."""
        ...


@runtime_checkable
class CopiesList(Protocol):
    """A master, whose list can go to another engine."""

    def copy_list(self, to: str) -> AsyncIterator[CopyStage | ListCopied]:
        """How far it is, and the end. Raises Refusal, UpstreamFailure."""
        ...


@runtime_checkable
class Probes(Protocol):
    """A role that looks at what it needs of others."""

    def probe(self) -> AsyncIterator[Probed]:
        """One after the other, as each is done."""
        ...


def control_folder(config: Config) -> Path:
    return config.node.data / FOLDER


class ControlServer:
    """The socket of one role in one process."""

    def __init__(
        self,
        config: Config,
        role: str,
        worker: int,
        subject: object,
        listeners: Callable[[], Sequence[Listener]],
        processes: int = 1,
    ) -> None:
        self._processes = processes
        self._config = config
        self._role = role
        self._worker = worker
        self._subject = subject
        self._listeners = listeners
        self._began = time.time()
        self._server: asyncio.AbstractServer | None = None
        self._log = logger(role=role)
        self._audit = audit.audit_log(
            config.node.data, f"{role}-control", worker, config.log.audit_keep_bytes
        )
        self._traces = Traces()
        self._memory = Memory()
        self._path = control_folder(config) / f"{role}-{worker}.sock"

    async def start(self) -> None:
        """A socket that cannot be made (the disk is full) is told and does without: mail goes on."""
        try:
            self._make_way()
            with short_path(self._path) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_REQUEST)
        except OSError as problem:
            self._log.warning("control.unavailable", path=str(self._path), problem=str(problem))

    def _make_way(self) -> None:
        make_own_folder(self._path.parent)
        self._path.unlink(missing_ok=True)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), ANSWER_S)
            request = parse_control_request(line)
            asker = parse_asker(line)
            self._note(request, asker if asker.user else Asker(user_behind(writer)))
            async for answer in self._answer(request, reader):
                self._tell(writer, answer)
                await writer.drain()
            self._tell(writer, {"done": True})
        except (OSError, ValueError, TimeoutError, BadSyntax) as problem:
            with contextlib.suppress(OSError):
                self._tell(writer, {"no": str(problem)})
        finally:
            writer.close()

    def _tell(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        """Raises ConnectionResetError where nobody listens any more: uvloop's write would raise what it raises for bugs."""
        if writer.is_closing():
            raise ConnectionResetError("who asked has gone")
        writer.write(format_answer({**self._who, **answer}))

    @property
    def _who(self) -> Answer:
        return {"node": self._config.node.name, "role": self._role, "worker": self._worker}

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader
    ) -> AsyncIterator[Answer]:
        match request:
            case AskStatus():
                if isinstance(self._subject, Looks):
                    await self._subject.look()
                yield self._status().shown()
            case AskFigures():
                if isinstance(self._subject, Looks):
                    await self._subject.look()
                counted = self._subject.figures if isinstance(self._subject, Counted) else Figures()
                yield {**self._status().shown(), **counted.shown()}
            case AskSessions(wanted):
                for _, session in self._sessions(wanted):
                    yield session.shown()
            case Kick(wanted):
                sessions = list(self._sessions(wanted)) if request.is_for(self._role) else []
                for connection, _ in sessions:
                    end_session(connection, "An administrator has ended this session")
                yield Kicked(len(sessions)).shown()
            case AskConflicts(forget):
                if isinstance(self._subject, HasConflicts):
                    for conflict in self._subject.conflicts(forget):
                        yield conflict.shown()
            case AskPlace():
                if isinstance(self._subject, Places):
                    placed = await self._subject.place(request)
                    if placed is not None:
                        yield placed.shown()
            case AskProbe():
                if isinstance(self._subject, Probes):
                    async for seen in self._subject.probe():
                        yield seen.shown()
                for flaw in self._certificate_flaws():
                    yield Probed("its certificate", flaw, "certificate").shown()
            case CopyList(to):
                if isinstance(self._subject, CopiesList):
                    try:
                        async for stage in self._subject.copy_list(to):
                            yield stage.shown()
                    except (Refusal, UpstreamFailure, ConfigError) as problem:
                        yield {"no": str(problem)}
            case AskTrail():
                for line in await self._trail(request):
                    yield line.shown()
            case AskChain() if self._is_first:
                yield (await self._chain(request)).shown()
            case AskChain():
                pass
            case AskLog(text, least):
                for at, level, facts in recent.found(text, least):
                    yield LogLine(at, level, facts).shown()
            case AskTrace(user):
                async for answer in self._trace(user, reader):
                    yield answer
            case other:  # the node as a whole answers it
                raise unknown_request(other.word)

    def _note(self, request: Request, by: Asker) -> None:
        """In the audit trail, what changes something."""
        who = {"user": by.user, **({"peer": by.peer} if by.peer else {})}
        match request:
            case Kick(wanted) if self._is_first and request.is_for(self._role):
                self._audit.note("kick", {**who, "wanted": wanted.given()})
            case AskConflicts(True) if isinstance(self._subject, HasConflicts):
                self._audit.note("conflicts.forget", who)
            case _:
                pass

    @property
    def _is_first(self) -> bool:
        """Of a role's workers it alone does what is done once; the page's process tells of itself only."""
        return self._worker == FIRST_WORKER and self._role != WEB.name

    async def _chain(self, request: AskChain) -> ChainChecked:
        """Of all that the role's workers have written."""
        folder, files = trail_folder(self._config.node.data), self._files(request.kind)
        chains = [
            path for role in (NODE, self._role) for path in chains_of(folder, request.kind, role)
        ]
        broken = [await asyncio.to_thread(breaks_in, path) for path in chains]
        return ChainChecked(len(files), tuple(place for places in broken for place in places))

    def _files(self, kind: str) -> list[Path]:
        """What this role's workers have written, and the node as a whole: each role answers for that."""
        folder = trail_folder(self._config.node.data)
        return [path for role in (NODE, self._role) for path in files_of(folder, kind, role)]

    async def _trail(self, request: AskTrail) -> Sequence[TrailLine]:
        """One worker reads what all of its role have written, also of what has just been answered."""
        keys = SEARCHED.get(request.kind)
        if keys is None:
            raise BadSyntax(f"{request.kind!r} is none of {', '.join(SEARCHED)}")
        if not self._is_first:
            return ()
        if request.kind != audit.KIND:
            await asyncio.sleep(2 * GATHER_S)  # lines wait for each other
        since = stamp(request.within_s) if request.within_s else ""
        files = self._files(request.kind)
        lines = await asyncio.to_thread(newest, find(files, request.words, keys, since))
        return [_trail_line(facts) for facts in lines]

    # --- status

    def _status(self) -> Status:
        listeners, (disk_free, disk_size) = self._listeners(), disk_of(self._config.node.data)
        process = ProcessFacts(
            version=__version__,
            pid=os.getpid(),
            now=time.time(),
            uptime_s=round(time.time() - self._began, 1),
            connections=sum(len(listener.connections) for listener in listeners),
            cpu_s=round(time.process_time(), 3),
            memory_kib=self._memory.kib(),
            descriptors=descriptors(),
            descriptors_most=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            disk_free=disk_free,
            disk_size=disk_size,
            certificate_until=self._certificate_until(),
            replaced=is_replaced(),
            processes=self._processes,
        )
        subject = self._subject
        return Status(process, subject.report() if isinstance(subject, Reports) else RoleFacts())

    def _certificate_until(self) -> float | None:
        """When the first of its certificates ends."""
        expiries = []
        for path in {self._config.tls.certificate, self._config.tls.public_certificate} - {None}:
            with contextlib.suppress(AuthorityError):
                expiries.append(read_certificate(cast(Path, path)).not_valid_after_utc)
        return min(expiries).timestamp() if expiries else None

    def _certificate_flaws(self) -> list[str]:
        """Of the files as they are now, which a restart or reload would read."""
        tls, now = self._config.tls, datetime.now(UTC)
        flaws: list[str] = []
        if tls.certificate is not None and tls.key is not None:
            flaws += flaws_of(tls.certificate, tls.key, tls.ca, now)
        if tls.public_certificate is not None and tls.public_key is not None:
            flaws += flaws_of(tls.public_certificate, tls.public_key, None, now)
        return flaws

    # --- sessions

    def _sessions(self, wanted: Wanted) -> Iterator[tuple[Connection, SessionShown]]:
        for listener in self._listeners():
            for connection in list(listener.connections):
                receiver = behind_tap(connection.receiver)
                session = (
                    receiver.describe()
                    if isinstance(receiver, Described)
                    else SessionShown(connection.cid, connection.peer, connection.is_tls)
                )
                if wanted.fits(session):
                    yield connection, session

    # --- the wire of one user

    async def _trace(self, user: str, reader: asyncio.StreamReader) -> AsyncIterator[Answer]:
        """What passes between a user's clients and this process, until the operator hangs up: of those who connect while
        a trace is under way from their first octet, of others from now on."""
        lines = self._traces.begin(user)
        wanted = Wanted(user=user)
        hung_up = asyncio.ensure_future(reader.read())
        try:
            for listener in self._listeners():
                listener.watch = self._traces.watch
            yield {"trace": user}
            while not hung_up.done():
                self._traces.look([connection for connection, _ in self._sessions(wanted)])
                while not lines.empty():
                    yield shown_of(lines.get_nowait())
                await asyncio.wait([hung_up], timeout=LOOK_EVERY_S)
        finally:
            hung_up.cancel()
            if not self._traces.end(lines):
                for listener in self._listeners():
                    listener.watch = None


def _trail_line(facts: Mapping[str, object]) -> TrailLine:
    return TrailLine(str(facts.get("at", "")), str(facts.get("event", "")), facts)


def end_session(connection: Connection, text: str) -> None:
    """Say goodbye in the session's own words, or end the connection."""
    receiver = behind_tap(connection.receiver)
    if isinstance(receiver, Described):
        receiver.say_bye(text)
    else:
        connection.abort()


def user_behind(writer: asyncio.StreamWriter) -> str:
    """Who asks on this host, as the system knows it: `uid 0`."""
    sock = writer.get_extra_info("socket")
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return f"uid {_CREDENTIALS.unpack(packed)[1]}"
    except (OSError, AttributeError):  # another system than Linux
        return ""


# --- the lines


def format_answer(answer: Answer) -> bytes:
    return json.dumps(answer, default=str).encode() + b"\n"


def sockets_in(folder: Path) -> list[Path]:
    """Of a node's processes; none where it has never run."""
    return sorted(folder.glob("*.sock")) if folder.is_dir() else []


async def ask_local(
    folder: Path, request: Request, by: Asker = NOBODY
) -> AsyncIterator[Mapping[str, Any]]:
    """Ask every process of a node on this host, on behalf of an operator if one is named; answers as they come, `done`
    behind the last of each process. One that is gone is passed over."""
    answers: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(1000)
    paths = sockets_in(folder)

    async def one(path: Path) -> None:
        try:
            with short_path(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=1 << 20)
        except OSError:
            await answers.put(None)
            return
        try:
            writer.write(format_request(request, by))
            while line := await reader.readline():
                await answers.put(json.loads(line))
        except (OSError, ValueError):
            pass
        finally:
            writer.close()
            await answers.put(None)

    tasks = [asyncio.ensure_future(one(path)) for path in paths]
    try:
        left = len(tasks)
        while left:
            answer = await answers.get()
            if answer is None:
                left -= 1
            else:
                yield answer
    finally:
        for task in tasks:
            task.cancel()


class RemoteControl:
    """An operator's connection over TLS: one request, answered by all processes of this node."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._held = b""
        self._task: asyncio.Task[None] | None = None
        self._log = logger(role="control", cid=connection.cid, peer=connection.peer)

    @property
    def _is_operator(self) -> bool:
        certificate = self._connection.certificate
        return certificate is not None and OPERATOR_ROLE in certificate.roles

    def begin(self) -> None:
        if self._is_operator:
            self._connection.became_known()
        else:
            self._refuse()

    def _refuse(self) -> None:
        certificate = self._connection.certificate
        self._log.warning("control.refused", name=certificate.name if certificate else "")
        self._connection.write(format_answer({"no": "an operator's certificate is needed"}))
        self._connection.close()

    def received(self, data: bytes) -> None:
        if self._task is not None or not self._is_operator:  # whatever came with the handshake
            return
        self._held += data
        line, newline, _ = self._held.partition(b"\n")
        if newline:
            self._task = asyncio.get_running_loop().create_task(self._run(line))
        elif len(self._held) > MAX_REQUEST:
            self._connection.abort()

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, line: bytes) -> None:
        if not self._is_operator:  # nothing is done for anybody else, whoever calls this
            self._refuse()
            return
        certificate = self._connection.certificate
        try:
            request = parse_control_request(line)
            self._log.info(
                "control.asked", user=certificate.name if certificate else "", do=request.word
            )
            by = Asker(certificate.name if certificate else "", self._connection.peer)
            async for answer in ask_local(self._folder, request, by):
                self._connection.write(format_answer(answer))
                await self._connection.drain(ANSWER_S)
        except (BadSyntax, OSError) as problem:
            self._connection.write(format_answer({"no": str(problem)}))
        self._connection.close()
