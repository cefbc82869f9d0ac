"""A message on its way in: in memory while it is small, then in a file of this process's own folder.

A file becomes a message by a hard link into each root that takes it: one stored copy for many recipients. Until the
roots have committed, a third link `incoming/PROCESS/ROOT/NAME` says where it went; after a crash the next start finds
it and removes a link that no row names.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

from murder.api.disk import disk_error
from murder.api.store import Incoming
from murder.durable import sync_folder
from murder.errors import Misuse
from murder.kit.root import Root, make_folder

FILE_MODE: Final = 0o600
BUFFER_OCTETS: Final = 64 * 1024  # of one: hundreds may be on their way
SYNCS_AT_ONCE: Final = 16  # more of them bring no more, measured on ext4
TRIED: Final = "tried"
TRIED_OCTETS: Final = 4096  # less may need no block of its own


class FileIncoming:
    """See murder.api.store.Incoming."""

    def __init__(self, area: "IncomingArea", inline_octets: int) -> None:
        self._area = area
        self._inline_octets = inline_octets
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._map: mmap.mmap | None = None
        self._synced = False
        self._size = 0
        self._pins = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def is_inline(self) -> bool:
        """Whether it is small enough to stand in the database."""
        return self._file is None

    async def write(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._file is None:
            self._memory += data
            if len(self._memory) > self._inline_octets:
                self._spill()
            return
        try:
            self._file.write(data)
        except OSError as error:
            raise disk_error(error, self._path or Path()) from error

    def _spill(self) -> None:
        self._path = self._area.folder / secrets.token_hex(16)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
            self._file = os.fdopen(descriptor, "w+b", buffering=BUFFER_OCTETS)
            self._file.write(self._memory)
        except OSError as error:
            raise disk_error(error, self._path) from error
        self._memory = bytearray()

    def octets(self) -> memoryview:
        if self._file is None:
            return memoryview(bytes(self._memory))
        if self._map is None or len(self._map) != self._size:
            self._flush()
            self._map = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        return memoryview(self._map)

    def _flush(self) -> None:
        assert self._file is not None
        try:
            self._file.flush()
        except OSError as error:
            raise disk_error(error, self._path or Path()) from error

    def link_into(self, root: Root) -> str:
        """Make it a durable file of that root; its name there. Runs in the root's writer, before its commit."""
        self.sync()
        name = secrets.token_hex(16)
        self.link_as(root, name)
        sync_folder(root.file_of(name).parent)
        return name

    def sync(self) -> None:
        """Make the octets durable. In any thread."""
        assert self._file is not None
        if not self._synced:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = True

    def link_as(self, root: Root, name: str) -> None:
        """The names alone; the caller sees to what is durable."""
        assert self._path is not None
        witness = self._area.folder / root.folder.name / name
        witness.parent.mkdir(mode=0o700, exist_ok=True)
        os.link(self._path, witness)
        target = root.file_of(name)
        make_folder(target.parent)
        os.link(self._path, target)

    def dropped(self, root: Root, name: str) -> None:
        """The root has not committed: the file is nobody's."""
        with contextlib.suppress(OSError):
            root.file_of(name).unlink()
        self.settled(root, name)

    def settled(self, root: Root, name: str) -> None:
        """The witness is no longer needed."""
        with contextlib.suppress(OSError):
            (self._area.folder / root.folder.name / name).unlink()

    def pin(self) -> None:
        """Keep the octets, also if it is closed, until `unpin`: a writer is to store them."""
        if self._is_closed:
            raise Misuse("an Incoming was appended after its close")
        self._pins += 1

    def unpin(self) -> None:
        """One reader fewer; with the last one a closed message lets go of its file."""
        self._pins -= 1
        if self._is_closed and not self._pins:
            self._release()

    async def close(self) -> None:
        self._is_closed = True
        if not self._pins:
            self._release()

    def _release(self) -> None:
        if self._file is not None and self._path is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._file = None
        self._memory = bytearray()


def link_many(incomings: Sequence[FileIncoming], root: Root) -> list[str]:
    """Make many durable files of that root at once; their names there. A disk that is asked to sync many files at the
    same time writes its journal once for all of them; so does a folder that takes them all. Raises OSError: then none
    is there."""
    if not incomings:
        return []
    folder = secrets.token_hex(1)
    names = [folder + secrets.token_hex(15) for _ in incomings]
    try:
        for incoming, name in zip(incomings, names, strict=True):
            incoming.link_as(root, name)
        with ThreadPoolExecutor(min(SYNCS_AT_ONCE, len(incomings)), "sync") as pool:
            for _ in pool.map(FileIncoming.sync, incomings):
                pass
        sync_folder(root.file_of(names[0]).parent)
    except OSError as error:
        for incoming, name in zip(incomings, names, strict=True):
            incoming.dropped(root, name)
        raise disk_error(error, root.folder) from error
    return names


class IncomingArea:
    """This process's folder for incoming messages. Its lock says that the process lives.

    Its name is durable before anything stands in it: the next start finishes by it what this process had begun."""

    def __init__(self, top: Path) -> None:
        make_folder(top)
        self.folder, lock = _make_area(top)
        while lock is None:
            self.folder, lock = _make_area(top)
        self._lock = lock
        sync_folder(top)

    def try_out(self) -> None:
        """Write a little, as of a message that comes, and remove it; nothing is flushed. Raises OSError."""
        path = self.folder / TRIED
        try:
            with open(path, "wb", buffering=0) as file:
                file.write(bytes(TRIED_OCTETS))
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _make_area(top: Path) -> tuple[Path, int | None]:
    """A new folder, and its lock; None where a process that starts now has taken it for a dead one's and removed it."""
    folder = top / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, FILE_MODE)
    except FileNotFoundError:
        return folder, None
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fstat(lock).st_nlink:
        return folder, lock
    os.close(lock)
    return folder, None


def dead_areas(top: Path) -> Iterator[Path]:
    """Folders of processes that no longer live; each is held while the caller has it."""
    for folder in sorted(top.iterdir()) if top.is_dir() else []:
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def witnesses(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What a dead process was about to store: root folder name, file names."""
    for root in folder.iterdir():
        if root.is_dir():
            yield root.name, [file.name for file in root.iterdir()]


def remove_area(area: Path) -> None:
    """With what is in it; what cannot be removed stays."""
    for path in sorted(area.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
    with contextlib.suppress(OSError):
        area.rmdir()


def ours(incoming: Incoming) -> FileIncoming:
    """A message on its way in as this kit has made it: a store is given back only its own."""
    assert isinstance(incoming, FileIncoming)
    return incoming
