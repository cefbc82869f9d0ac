"""Writing ahead of LMDB: a change is durable in the journal, seen above LMDB, and put into LMDB with many others later.

A commit of LMDB costs two flushes of scattered pages, a record in the journal one of one block. Only where it is sure that
LMDB will take what was acknowledged (room in its map, in memory and in the journal) a change goes this way; whatever
else is to be written waits until all that is ahead has been settled, and goes into LMDB directly. While something is ahead
the journal's lock is held, so that no other process writes between.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol, TypeVar, cast

from murder.errors import Code, Refusal
from murder.log import logger
from murder.roles.mupdate.database.ahead import Draft, Layer, TooMany
from murder.roles.mupdate.database.journal import NOTHING_BEFORE, Chapter, Journal, format_changes
from murder.roles.mupdate.database.snapshot import Snapshot, Table, WriteTransaction

T = TypeVar("T")

SETTLE_S: Final = 0.2  # that what is acknowledged may be ahead
AGAIN_S: Final = 1.0  # after a disk did not take it
MOST_KEYS: Final = 12_288  # of one layer: some 5 MiB of memory, and half a second of LMDB's work
MANY_KEYS: Final = MOST_KEYS // 2  # are settled at once
PAGES: Final = 4  # that a key may take in LMDB, at worst
PAGE_OCTETS: Final = 4096


class Below(Protocol):
    """LMDB, as `Environment` opens it."""

    @property
    def layered_tables(self) -> tuple[Table, ...]:
        """All of them, in the order of their numbers in the journal."""
        ...

    @property
    def counted_tables(self) -> frozenset[Table]: ...

    def stamp_below(self) -> int:
        """LMDB's number of the last commit."""
        ...

    def free_octets(self) -> int:
        """Of the map, at least."""
        ...

    def read_below(self, work: Callable[[Snapshot, int], T]) -> T:
        """With the number of the commit that it shows."""
        ...

    def write_below(self, work: Callable[[WriteTransaction], T], *, owed: bool) -> T:
        """`owed`: the map grows for it, whatever was configured."""
        ...

    def chapter_below(self, transaction: Snapshot) -> bytes:
        """The journal's last chapter that is in LMDB, b"" where none is."""
        ...

    def put_chapter(self, transaction: WriteTransaction, name: bytes) -> None: ...

    def is_marked(self, transaction: Snapshot) -> bool:
        """Whether LMDB says that there is a journal in front of it, so that older versions refuse it."""
        ...

    def mark(self, *, is_ahead: bool) -> None:
        """Have it say so, or no longer. Raises Refusal."""
        ...


class _Directly(Exception):
    """It cannot be written ahead: it is to be done in LMDB."""


class Settling:
    """What stands between an environment's writers and LMDB. `layers`: what is ahead, the uppermost first."""

    def __init__(
        self, below: Below, journal: Journal | None, publishing: threading.Lock, *, read_only: bool
    ) -> None:
        self.layers: tuple[Layer, ...] = ()
        self.published = 0  # times that something has been
        self._below = below
        self._journal = journal
        self._publishing = publishing  # no reader reads meanwhile
        self._read_only = read_only
        self._may_begin = journal is not None and journal.half > 0
        self._is_ours = False  # the journal's lock, while something is ahead
        self._steps_aside = False  # another process wants to write
        self._writing = threading.Lock()
        self._settling = threading.Lock()  # taken before `_writing`
        self._names: dict[Layer, Chapter] = {}
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._hurried = threading.Event()
        self._closed = threading.Event()
        self._log = logger(role="mupdate")
        self._is_left = False  # what is ahead, by a process that was here before
        if journal is not None:
            self._look(journal)

    def _look(self, journal: Journal) -> None:
        """At what a process has left that was killed, or stood in a power cut."""
        if not journal.lock(shared=self._read_only):
            return  # somebody writes, who has all of it
        self.layers = self._left(journal)
        if self._read_only:
            journal.unlock()
            return
        self._is_ours = True
        try:
            if self.layers:
                self._log.info("list.journal_replayed", chapters=len(self.layers))
                self._settle_all()
            if self._may_begin:
                journal.make_room()
        except (Refusal, OSError) as error:  # what is there can be read
            self._log.warning("list.not_settled", problem=str(error))
        self._let_go()

    def _left(self, journal: Journal) -> tuple[Layer, ...]:
        """Chapters that are not in LMDB, as layers."""
        if journal.is_empty:
            return ()

        def found(snapshot: Snapshot, stamp: int) -> tuple[Layer, ...]:
            layers: tuple[Layer, ...] = ()
            before = self._below.chapter_below(snapshot) or NOTHING_BEFORE
            for chapter, records in journal.left(before, stamp):
                layer = Layer(self._below.layered_tables, chapter.stands_on)
                draft = Draft(snapshot, layers, layer, self._below.counted_tables)
                for changes in records:
                    for number, changed in changes:
                        _put(draft, self._below.layered_tables[number], changed)
                self._names[layer] = chapter
                layers = (layer, *layers)
            return layers

        layers = self._below.read_below(found)
        self._is_left = bool(layers)
        return layers

    # Ahead

    @property
    def ahead_octets(self) -> int:
        """Of the journal, that are not in LMDB yet."""
        journal = self._journal
        return journal.used if journal is not None and self.layers else 0

    @property
    def is_prompt(self) -> bool:
        """Whether a small change waits for nothing but its own flush of the disk."""
        journal, layers = self._journal, self.layers
        if self._steps_aside:
            return False
        return (
            not layers
            or journal is None
            or (layers[0].keys < MANY_KEYS and journal.used < journal.half // 2)
        )

    def write(
        self, work: Callable[[WriteTransaction], T], *, flush: bool = True
    ) -> tuple[T] | None:
        """Do it ahead of LMDB, durably (without `flush`: soon); None where it must be done directly. `work` has run then,
        perhaps."""
        if not self._may_begin:
            return None
        with self._writing:
            try:
                return (self._write(work, flush),)
            except _Directly:
                return None
            finally:
                if not (self.layers and self.layers[0].keys):
                    self._let_go()

    def _write(self, work: Callable[[WriteTransaction], T], flush: bool) -> T:
        journal = self._journal
        assert journal is not None
        self._begin(journal)
        below = self._below
        own = Layer(below.layered_tables, 0)

        def draft(snapshot: Snapshot, stamp: int) -> T:
            layers = [layer for layer in self.layers if layer.stands_on >= stamp]
            return work(Draft(snapshot, layers, own, below.counted_tables, room, journal.room))

        room = MOST_KEYS - self.layers[0].keys
        try:
            outcome = below.read_below(draft)
        except TooMany as error:
            raise _Directly from error
        if not own.keys:
            return outcome
        body = format_changes(enumerate(own.tables.values()))  # as `below.layered_tables`
        top = self.layers[0]
        if not journal.fits(len(body)):
            raise _Directly
        try:
            journal.append(body, flush=flush)
        except OSError as error:
            self._may_begin = False
            self._log.warning("list.journal_failed", problem=str(error))
            raise _Directly from error
        with self._publishing:
            top.take(own)
            self.published += 1
        self._wake(hurry=not self.is_prompt)
        return outcome

    def _begin(self, journal: Journal) -> None:
        """Have the lock, and a layer to write to."""
        if self._steps_aside or self._is_left:
            raise _Directly
        if self.layers:
            return
        if not self._is_ours:
            if journal.is_wanted() or not journal.lock():
                raise _Directly
            self._is_ours = True
            self.layers = self._left(journal)
            if self.layers:
                raise _Directly
        if not self._has_room:
            raise _Directly
        journal.make_room()
        if not self._below.read_below(lambda snapshot, _: self._below.is_marked(snapshot)):
            try:
                self._below.mark(is_ahead=True)
            except Refusal as refusal:
                raise _Directly from refusal
        before, stamp = self._below.read_below(
            lambda snapshot, stamp: (self._below.chapter_below(snapshot), stamp)
        )
        self._put_on(journal, before or NOTHING_BEFORE, stamp)

    def _flush(self, journal: Journal) -> None:
        """Before a chapter begins behind this one: after a power cut none must be there whose chapter before is not whole.
        Raises Refusal."""
        try:
            journal.flush()
        except OSError as error:
            self._may_begin = False
            self._log.warning("list.journal_failed", problem=str(error))
            raise Refusal(Code.UNAVAILABLE, "The journal of the list cannot be written") from error

    def _put_on(self, journal: Journal, before: bytes, stands_on: int) -> None:
        layer = Layer(self._below.layered_tables, stands_on)
        if self.layers:
            layer.left = self.layers[0].left
        self._names[layer] = Chapter(os.urandom(8), before, stands_on)
        journal.begin(self._names[layer])
        self.layers = (layer, *self.layers)

    def _let_go(self) -> None:
        """The lock, where nothing is ahead."""
        if self._is_ours and not any(layer.keys for layer in self.layers):
            for layer in self.layers:
                del self._names[layer]
            self.layers = ()
            self._is_ours = False
            assert self._journal is not None
            self._journal.unlock()

    # Directly

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing is ahead, and no other process writes. Raises Refusal where LMDB does not take what is ahead."""
        with self._by_itself():
            self._settle_all()
            yield

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """Nobody else writes."""
        journal = self._journal
        with self._settling, self._writing:
            if journal is None:
                yield
                return
            if not self._is_ours:
                journal.lock_when_free()
                self._is_ours = True
                self.layers = self._left(journal)
            try:
                yield
            finally:
                self._steps_aside = journal.is_wanted()
                self._let_go()

    def write_directly(self, work: Callable[[WriteTransaction], T]) -> T:
        """Do it in LMDB, behind what is ahead: in one commit with that, where the map has room for both. Raises Refusal, and
        what `work` raises."""
        with self._by_itself():
            layer = self.layers[0] if len(self.layers) == 1 else None
            if layer is None or not layer.keys or self._is_left or not self._has_room:
                self._settle_all()
                return self._below.write_below(work, owed=False)

            def both(transaction: WriteTransaction) -> T:
                self._put_layer(transaction, layer)
                return work(transaction)

            outcome = self._below.write_below(both, owed=False)
            with self._publishing:
                self.layers = ()
                self.published += 1
            del self._names[layer]
            return outcome

    @property
    def _has_room(self) -> bool:
        """Whether LMDB takes two whole layers, and more."""
        journal = self._journal
        half = 0 if journal is None else journal.half
        return self._below.free_octets() >= 2 * (MOST_KEYS * PAGES * PAGE_OCTETS + 2 * half)

    def _settle_all(self) -> None:
        while self.layers:
            self._settle(self.layers[-1])
            self.layers = self.layers[:-1]
        self._is_left = False

    def _settle(self, layer: Layer) -> None:
        """Put a layer into LMDB, as the commit behind the one that it stands on."""
        if layer.keys:
            self._below.write_below(
                lambda transaction: self._put_layer(transaction, layer), owed=True
            )
        del self._names[layer]

    def _put_layer(self, transaction: WriteTransaction, layer: Layer) -> None:
        for table, changed in layer.tables.items():
            _put(transaction, table, changed)
        self._below.put_chapter(transaction, self._names[layer].name)

    # By and by

    def _wake(self, *, hurry: bool) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="settling", daemon=True)
            # none can be had now: the journal has it, and the next commit asks again
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        if hurry:
            self._hurried.set()
        if not self._woken.is_set():
            self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._hurried.wait(SETTLE_S)
            if self._closed.is_set():
                return
            self._woken.clear()
            self._hurried.clear()
            try:
                self._settle_lowest()
            except Refusal as refusal:
                self._log.warning("list.not_settled", problem=refusal.text)
                self._woken.set()
                self._closed.wait(AGAIN_S)  # whoever is in a hurry

    def _settle_lowest(self) -> None:
        """While others write above it."""
        journal = self._journal
        assert journal is not None
        with self._settling:
            with self._writing:
                if not self.layers:
                    return
                lowest = self.layers[-1]
                if len(self.layers) == 1 and self._may_begin and not self._is_left:
                    self._flush(journal)
                    self._put_on(journal, self._names[lowest].name, lowest.stands_on + 1)
            self._settle(lowest)
            with self._writing:
                self.layers = self.layers[:-1]
                self._steps_aside = journal.is_wanted()
                if self._steps_aside or (self.layers and self.layers[0].keys):
                    self._woken.set()
                self._let_go()

    def close(self) -> None:
        """Settle, and leave nothing that could be taken for more. Where the disk does not, the journal has it; where another
        process writes, what is in the journal is that one's."""
        self._closed.set()
        self._hurried.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        journal = self._journal
        if journal is None:
            return
        try:
            if not self._read_only and (self._is_ours or journal.lock()):
                with self.alone():
                    journal.void()
                    if self._below.read_below(lambda snapshot, _: self._below.is_marked(snapshot)):
                        self._below.mark(is_ahead=False)
        except (Refusal, OSError) as error:
            self._log.warning("list.not_settled", problem=str(error))
        journal.close()


def _put(transaction: WriteTransaction, table: Table, changed: dict[bytes, bytes | None]) -> None:
    puts: list[tuple[bytes, bytes]] = []
    if None in changed.values():
        for key in sorted(changed):
            value = changed[key]
            if value is None:
                transaction.delete(key, db=table)
            else:
                puts.append((key, value))
    else:
        puts = sorted(cast(dict[bytes, bytes], changed).items())
    if puts:
        transaction.cursor(db=table).putmulti(puts)
