"""The folder of a backup: what was backed up, once, under its SHA-256, and the points in time that are made of it.

    FORMAT            which format this is; also the lock of whoever writes
    objects/ab/cdef…  octets of a message as they came, or JSON: each under its digest, never changed
    points/TIME.json  a point in time: written when all that it names is durable, and not before
    restores/         restores under way
    damaged/          objects that were not what their names say, put aside by `verify`

Messages that many have are here once, and what has not changed since the last point is not written again. A run that is
killed leaves objects that no point names: the next run finds them, `prune` removes them.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from murder.durable import replace_file
from murder.errors import Code, Refusal

FORMAT: Final = b"murder backup 1\n"
PIECE: Final = 256 * 1024


class Damaged(Refusal):
    """An object is missing, or not what its name says."""


class Vault:
    """See the module. Made by `open_vault`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new: dict[str, Path] = {}  # written, not durable yet: under which name they will be
        self.written = 0  # octets, by this process

    # --- objects

    def path_of(self, digest: str) -> Path:
        return self.folder / "objects" / digest[:2] / digest[2:]

    def has(self, digest: str) -> bool:
        return digest in self._new or self.path_of(digest).exists()

    def read(self, digest: str) -> bytes:
        """An object, proved. Raises Damaged where it is missing or not what its name says."""
        draft = self._new.get(digest)
        if draft is not None:
            with contextlib.suppress(FileNotFoundError):  # it has its own name since
                return draft.read_bytes()
        try:
            octets = self.path_of(digest).read_bytes()
        except FileNotFoundError:
            raise Damaged(Code.CANNOT, f"{self.path_of(digest)} is missing") from None
        if hashlib.sha256(octets).hexdigest() != digest:
            raise Damaged(Code.CANNOT, f"{self.path_of(digest)} is damaged")
        return octets

    def read_json(self, digest: str) -> Any:
        """Raises Refusal."""
        return json.loads(self.read(digest))

    def put(self, octets: bytes) -> str:
        """Keep octets; durable with the next `settle`. Their digest."""
        draft = self.draft()
        draft.write(octets)
        return draft.finish()

    def put_json(self, value: object) -> str:
        return self.put(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())

    def draft(self) -> "Draft":
        """An object that comes piece by piece."""
        return Draft(self)

    def taken(self, digest: str, draft: Path, size: int) -> None:
        """For `Draft`: it is whole."""
        if self.has(digest):
            draft.unlink()
            return
        self._new[digest] = draft
        self.written += size

    def settle(self) -> None:
        """What was put is durable, under its name. For a thread, while nobody puts. Raises OSError."""
        folders = set()
        for digest, draft in list(self._new.items()):
            path = self.path_of(digest)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(draft)
            draft.replace(path)
            folders.add(path.parent)
            del self._new[digest]
        for folder in folders:
            _sync(folder)
        if folders:
            _sync(self.folder / "objects")

    def settle_all(self) -> None:
        """All objects are durable under their names, also those of a run that was killed. For a thread."""
        self.settle()
        for folder in (self.folder / "objects").iterdir():
            _sync(folder)
        _sync(self.folder / "objects")

    @property
    def waiting(self) -> int:
        """Objects that are not durable yet."""
        return len(self._new)

    # --- points

    def points(self) -> list[str]:
        """Their names, the oldest first."""
        return sorted(path.stem for path in (self.folder / "points").glob("*.json"))

    def point(self, name: str) -> Mapping[str, Any]:
        """Raises Refusal."""
        path = self.folder / "points" / f"{name}.json"
        try:
            told = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise Refusal(Code.NONEXISTENT, f"{self.folder} has no point {name}") from None
        except ValueError as error:
            raise Refusal(Code.CANNOT, f"{path} cannot be read: {error}") from None
        if not isinstance(told, dict) or told.get("format") != 1:
            raise Refusal(Code.CANNOT, f"{path} is no point of a backup that this version reads")
        return told

    def keep_point(self, name: str, told: Mapping[str, Any]) -> str:
        """Write it, durable: all that it names is. Its name, which is another where that is taken."""
        path, number = self.folder / "points" / f"{name}.json", 1
        while path.exists():
            number += 1
            path = self.folder / "points" / f"{name}-{number}.json"
        self.replace(path, json.dumps(told).encode())
        return path.stem

    def remove_point(self, name: str) -> None:
        (self.folder / "points" / f"{name}.json").unlink()
        _sync(self.folder / "points")

    def replace(self, path: Path, octets: bytes) -> None:
        """A small file, as a whole and durable."""
        replace_file(path, octets)

    # --- what was found damaged

    def put_aside(self, digest: str) -> None:
        """It is not what its name says: the next run reads what it was once more."""
        self.replace(self.folder / "reread", b"")
        if self.path_of(digest).exists():
            self.path_of(digest).replace(self.folder / "damaged" / digest)

    @property
    def reads_anew(self) -> bool:
        """Whether something was put aside since the last whole point: what the last point names may not be here."""
        return (self.folder / "reread").exists()

    def read_anew_done(self) -> None:
        (self.folder / "reread").unlink(missing_ok=True)

    # --- one writer

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What there is stays meanwhile. Raises Refusal(IN_USE) while something is removed."""
        with _held(self.folder / "restores" / "lock", fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """For who is the one writer: nobody reads. Raises Refusal(IN_USE)."""
        with _held(self.folder / "restores" / "lock", fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes. Raises Refusal(IN_USE). What a killed process left half-written goes."""
        with _held(self.folder / "FORMAT", fcntl.LOCK_EX):
            for left in (self.folder / "objects" / "new").iterdir():
                left.unlink()
            yield


class Draft:
    """An object on its way in."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._path = vault.folder / "objects" / "new" / secrets.token_hex(12)
        self._file = _open(self._path)
        self._sum = hashlib.sha256()
        self._size = 0

    def write(self, octets: bytes | memoryview) -> None:
        """Raises OSError, which names the file."""
        self._sum.update(octets)
        self._size += len(octets)
        _write(self._file, octets, self._path)

    def finish(self) -> str:
        """Its digest."""
        self._file.close()
        digest = self._sum.hexdigest()
        self._vault.taken(digest, self._path, self._size)
        return digest

    def drop(self) -> None:
        """It is not wanted."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def open_vault(folder: Path, *, make: bool = False) -> Vault:
    """The backup in that folder; with `make` a new one where it is empty or not there. Raises Refusal, OSError."""
    mark = folder / "FORMAT"
    if make and not mark.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refusal(Code.CANNOT, f"{folder} is neither empty nor a backup of murder")
        for name in ("objects/new", "points", "restores", "damaged"):
            (folder / name).mkdir(mode=0o700, parents=True)
        Vault(folder).replace(mark, FORMAT)
        _sync(folder.parent)
    try:
        told = mark.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal(
            Code.NONEXISTENT, f"{folder} is no backup of murder: it has no file FORMAT"
        ) from None
    if told != FORMAT:
        raise Refusal(Code.CANNOT, f"{mark}: a format that this version does not read")
    return Vault(folder)


def digest_of_file(path: Path) -> str:
    """SHA-256. For a thread. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _held(path: Path, lock: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        text = f"{path}: another backup, restore, verify or prune is at work there"
        raise Refusal(Code.IN_USE, text) from None
    finally:
        os.close(descriptor)


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)


def _write(file: BinaryIO, octets: bytes | memoryview, path: Path) -> None:
    try:
        left = memoryview(octets)
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror, str(path)) from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
