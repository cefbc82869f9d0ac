"""What a move is and how far it has come: one small file a move and side, replaced and synced at every state.

An operator may read the files; finished ones are the history. Writing waits for the disk in a thread, so that people
work on meanwhile, and one file after the other, in the order asked for.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from murder.durable import replace_file
from murder.errors import Code, Refusal
from murder.model.name import MailboxName, is_below
from murder.roles.backend.hierarchy.intent import Intent, Operation
from murder.wire.nodes.carry import format_name, parse_name
from murder.wire.nodes.carry_words import is_move_id
from murder.wire.nodes.move_words import MoveRecord

FORMAT: Final = 2
CYRUS: Final = "Cyrus' XFER"  # who has begun a move that a Cyrus backend sends here
FROM_BACKUP: Final = "a backup"  # in place of a server: an operator's program sends what it has
# two changes so close together may look like one in the folder's time
SETTLED_NS: Final = 100_000_000
MAX_HISTORY: Final = 2000  # finished moves remembered
PREPARED_S: Final = 60.0  # a source that has not had it shown by then is away


class State(Enum):
    """How far a move has come. Up to STOPPED the source owns the mailboxes and the move can be aborted; from HANDING on
    it can only go on. Nobody but the owner shows them to anybody."""

    # source: people work, differences follow; target: what has come is kept aside
    COPYING = "copying"
    STOPPED = "stopped"  # source: frozen, the last differences go over
    PREPARED = "prepared"  # target: all is here, verified and durable, and shown as soon as the source says so
    HANDING = "handing"  # source: the target is prepared; the master is told, then the rows here go
    COMMITTED = "committed"  # target: shown here; the master is being told
    ENDING = "ending"  # target: given up, what has come is being removed
    DONE = "done"  # source: what has left is kept for a while; target: finished
    REMOVED = "removed"  # source: nothing is left
    UNDONE = "undone"  # source: it has come back
    FAILED = "failed"  # source: stopped by a problem, and as before; can be resumed
    ABORTED = "aborted"  # given up, nothing has changed


OPEN: Final = frozenset(
    {
        *(State.COPYING, State.STOPPED, State.PREPARED, State.HANDING, State.COMMITTED),
        *(State.FAILED, State.ENDING),
    }
)
ABORTABLE: Final = frozenset({State.COPYING, State.STOPPED, State.FAILED})
ARRIVING: Final = frozenset({State.COPYING, State.PREPARED})  # target: nobody sees it yet
RUNNING: Final = frozenset({State.COPYING, State.STOPPED, State.HANDING})


class Side(Enum):
    """Which end of a move this is."""

    OUT = "out"
    IN = "in"


@dataclass(frozen=True, slots=True)
class Move:
    """One move at one end. `server` is the other end; times are Unix seconds, 0 where not yet."""

    id: str
    side: Side
    root: MailboxName
    server: str
    partition: str = ""
    state: State = State.COPYING
    names: tuple[MailboxName, ...] = ()
    process: str = ""
    by: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    stop_s: float = 0.0  # how long nobody could write
    messages: int = 0
    octets: int = 0
    problem: str = ""
    # target: of the list, when it showed them; what changed later has a higher one
    shown_seq: int = 0
    owes_abort: bool = False  # source: the target has not been told, and keeps what has come

    def holds(self, name: MailboxName) -> bool:
        """Whether that mailbox goes along: it, or one above it, is what moves."""
        return name in self.names or name == self.root or is_below(name, self.root)


def format_move(move: Move) -> bytes:
    """As JSON."""
    fields = asdict(move)
    fields.update(
        format=FORMAT,
        side=move.side.value,
        state=move.state.value,
        root=format_name(move.root),
        names=[format_name(name) for name in move.names],
    )
    return json.dumps(fields, indent=1).encode()


def record_of(move: Move) -> MoveRecord:
    """As an operator is told."""
    return MoveRecord(
        id=move.id,
        side=move.side.value,
        root=move.root,
        server=move.server,
        partition=move.partition,
        state=move.state.value,
        names=move.names,
        process=move.process,
        by=move.by,
        started_at=move.started_at,
        finished_at=move.finished_at,
        stop_s=move.stop_s,
        messages=move.messages,
        octets=move.octets,
        problem=move.problem,
        shown_seq=move.shown_seq,
        owes_abort=move.owes_abort,
        format=FORMAT,
    )


def parse_move(octets: bytes) -> Move:
    """The reverse. Raises ValueError, KeyError, TypeError."""
    fields: dict[str, Any] = json.loads(octets)
    if fields.pop("format") > FORMAT:
        raise ValueError("a newer murder wrote it")
    fields.update(
        side=Side(fields["side"]),
        state=State(fields["state"]),
        root=parse_name(fields["root"]),
        names=tuple(parse_name(name) for name in fields["names"]),
    )
    return Move(**fields)


def intent_of(move: Move) -> Intent:
    """The lock on the tree, at the source from the stop on, at the target while it is shown: no start after a crash gives
    it free, but whoever goes on with the move."""
    return Intent(Operation.MOVE, ((move.root, move.root),), f"move:{move.id}")


@dataclass(frozen=True, slots=True)
class Handed:
    """What the source told the target to show (rows with their access lists, notes without secrets, subscriptions), and the
    mod-sequences of what it keeps."""

    rows: tuple[tuple[MailboxName, bytes], ...]
    notes: Mapping[str, bytes]
    subscriptions: tuple[MailboxName, ...]
    left_at: Mapping[MailboxName, int]


class Journal:
    """The files of all moves of a backend, shared by its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read_at = -1  # st_mtime_ns of the folder, as it was when these were read:
        self._keeping: list[Move] = []
        self._turn = asyncio.Lock()
        self._known: dict[
            str, tuple[tuple[int, int], Move]
        ] = {}  # by file, as of its inode and time

    def _path(self, move: Move) -> Path:
        _check_id(move.id)
        return self.folder / f"{move.side.value}-{move.id}.json"

    async def save(
        self,
        move: Move,
        *,
        only_from: Collection[State] = (),
        prepared: bytes | None = None,
        **changed: Any,
    ) -> Move:
        """Write it, changed so; durable on return. Whoever is cancelled meanwhile is so after it. `prepared`: what the
        target was told to show, for `prepared_path`; it is durable before the move says so.

        With `only_from` just where its file has such a state until then, whoever writes it; else Refusal(CANNOT)."""
        move = replace(move, **changed)
        path, states = self._path(move), frozenset(only_from)

        def check() -> None:
            if states and path.exists() and (kept := self._read(path)).state not in states:
                raise Refusal(Code.CANNOT, f"the move {move.id} is {kept.state.value} now")

        if prepared is not None:
            await self._write(self.prepared_path(move), prepared)
        await self._write(path, format_move(move), check)
        return move

    def prepared_path(self, move: Move) -> Path:
        """Where the target keeps what it was told to show."""
        _check_id(move.id)
        return self.folder / f"in-{move.id}.prepared"

    def lock_path(self, move: Move) -> Path:
        """See `alone`."""
        _check_id(move.id)
        return self.folder / f"{move.side.value}-{move.id}.lock"

    def make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def was_just_prepared(self, move: Move) -> bool:
        """Whether its source, where that lives, is about to have it shown here, and may have let go of it by now."""
        if move.side is not Side.IN or move.state is not State.PREPARED:
            return False
        try:
            prepared_at = self.prepared_path(move).stat().st_mtime
        except FileNotFoundError:
            return False
        return time.time() < prepared_at + PREPARED_S

    def handed(self, move: Move) -> Handed | None:
        """What the source told the target to show, while the old copy is kept."""
        try:
            fields = json.loads(self._handed_path(move).read_bytes())
        except FileNotFoundError:
            return None
        return Handed(
            tuple((parse_name(name), parse_name(acl)) for name, acl in fields["rows"]),
            {key: bytes(parse_name(text)) for key, text in fields["notes"].items()},
            tuple(parse_name(text) for text in fields["subscriptions"]),
            {parse_name(text): int(modseq) for text, modseq in fields.get("left_at", {}).items()},
        )

    def _handed_path(self, move: Move) -> Path:
        _check_id(move.id)
        return self.folder / f"out-{move.id}.handed"

    async def save_handed(self, move: Move, octets: bytes) -> None:
        """Durable on return."""
        await self._write(self._handed_path(move), octets)

    def forget_handed(self, move: Move) -> None:
        """Nothing is kept any more that could be compared."""
        self._handed_path(move).unlink(missing_ok=True)

    async def _write(
        self, path: Path, octets: bytes, check: Callable[[], None] = lambda: None
    ) -> None:
        """Not begun, or done: nobody who waits for a cancelled task reads the old state while the new one is on its way
        to the disk."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            writing = loop.run_in_executor(None, _replace, path, octets, check)
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                while not writing.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([writing])
                raise

    def find(self, side: Side, move_id: str) -> Move | None:
        if not is_move_id(move_id):
            return None
        path = self.folder / f"{side.value}-{move_id}.json"
        return self._read(path) if path.exists() else None

    def _read(self, path: Path) -> Move:
        try:
            return parse_move(path.read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(
                Code.UNAVAILABLE, f"{path} cannot be read ({error}): restore it, or ask for help"
            ) from error

    def moves(self) -> Iterator[Move]:
        """All, the latest last."""
        kept = []
        known, self._known = self._known, {}
        for entry in os.scandir(self.folder) if self.folder.is_dir() else ():
            if not entry.name.endswith(".json"):
                continue
            try:
                stat = entry.stat()
                written = (stat.st_ino, stat.st_mtime_ns)
                was, move = known.get(entry.name, (None, None))
                if move is None or was != written:
                    move = self._read(self.folder / entry.name)
            except FileNotFoundError:
                continue  # forgotten meanwhile
            self._known[entry.name] = (written, move)
            kept.append(move)
        yield from sorted(kept, key=lambda move: move.started_at)

    def forget_old(self) -> None:
        """Keep the latest of those that are over."""
        over = [
            move
            for move in self.moves()
            if move.state not in OPEN | {State.DONE} and not move.owes_abort
        ]
        for move in over[:-MAX_HISTORY]:
            self._path(move).unlink(missing_ok=True)
            self.lock_path(move).unlink(missing_ok=True)
            self.forget_handed(move)

    def keeps(self, name: MailboxName) -> Move | None:
        """The move for whose sake the store has a mailbox that the list does not show: it has left, or is arriving."""
        try:
            written_at = self.folder.stat().st_mtime_ns  # every `save` renames a file into it
        except FileNotFoundError:
            return None
        if written_at != self._read_at:
            self._keeping = [move for move in self.moves() if _keeps(move)]
            is_settled = time.time_ns() - written_at > SETTLED_NS
            self._read_at = written_at if is_settled else -1
        return next((move for move in self._keeping if move.holds(name)), None)

    def kept_for_others(self, move: Move) -> frozenset[MailboxName]:
        """What the store keeps for the sake of other moves; what left before this one did was back, and is this one's."""
        return frozenset(name for other in self._beside(move) for name in other.names)

    def has_left_again(self, move: Move) -> bool:
        """Whether what left by this move was back, and is kept for a later one."""
        return any(
            other.side is Side.OUT and move.root in other.names for other in self._beside(move)
        )

    def _beside(self, move: Move) -> Iterator[Move]:
        """Others for which the store keeps something; without those that left before this one did."""
        for other in self.moves():
            left_before = other.side is Side.OUT and other.started_at < move.started_at
            if other.id != move.id and _keeps(other) and not left_before:
                yield other


def _replace(path: Path, octets: bytes, check: Callable[[], None]) -> None:
    """No other worker replaces a file meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        check()
        replace_file(path, octets)
    finally:
        os.close(folder)


def _check_id(move_id: str) -> None:
    """Names of files are made of letters and digits only, whoever has chosen the id."""
    if not is_move_id(move_id):
        raise Refusal(Code.CANNOT, f"{move_id[:40]!r} can be no move's id")


def may_be_only_here(move: Move) -> bool:
    """Whether what has come, and is not shown so far, may be nowhere else: all of it is prepared, or its source is a Cyrus,
    which removes it before it says so. What an operator restores is given up by an operator."""
    has_no_source = move.by == CYRUS or move.server == FROM_BACKUP
    is_coming = move.state is State.PREPARED or (move.state is State.COPYING and has_no_source)
    return move.side is Side.IN and is_coming


def _keeps(move: Move) -> bool:
    waits = move.side is Side.IN and move.state in ARRIVING | {State.ENDING}
    left = move.side is Side.OUT and move.state in (State.HANDING, State.DONE)
    return waits or left
