"""The folder of a backup: what was backed up, once, under its SHA-256, and the points in time that are made of it.

    FORMAT            which format this is; also the lock of whoever writes
    objects/ab/cdef…  octets of a message as they came, or JSON: each under its digest, never changed
    points/TIME.json  a point in time: written when all that it names is durable, and not before
    restores/         restores under way
    damaged/          objects that were not what their names say, put aside by `verify`

Whoever may write there can exchange what is restored, as who may write to a spool can. That is all: names that are no
digests, links, devices, pipes and files of any length lead to nothing outside the folder, and are told as damage.

Messages that many have are here once, and what has not changed since the last point is not written again. A run that is
killed leaves objects that no point names: the next run finds them, `prune` removes them.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from murder.durable import replace_file
from murder.errors import Code, Refusal

FORMAT: Final = b"murder backup 1\n"
MAX_OBJECT: Final = 1 << 30  # octets: more than any message that a backend takes
MAX_JSON: Final = 256 << 20  # a point of two million users
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_POINT: Final = re.compile(r"\d{8}T\d{6}Z(-\d{1,9})?")
_FOLDER: Final = re.compile(r"[0-9a-f]{2}|new")


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
        """Raises Damaged for what is no digest: names come from the files that are read."""
        if not _DIGEST.fullmatch(digest):
            raise Damaged(Code.CANNOT, f"{self.folder}: {digest[:80]!r} is no object's name")
        return self.folder / "objects" / digest[:2] / digest[2:]

    def has(self, digest: str) -> bool:
        return digest in self._new or _is_file(self.path_of(digest))

    def read(self, digest: str) -> bytes:
        """An object, proved. Raises Damaged where it is missing or not what its name says."""
        draft = self._new.get(digest)
        if draft is not None:
            with contextlib.suppress(FileNotFoundError):  # it has its own name since
                return draft.read_bytes()
        octets = read_file(self.path_of(digest), MAX_OBJECT)
        if hashlib.sha256(octets).hexdigest() != digest:
            raise Damaged(Code.CANNOT, f"{self.path_of(digest)} is damaged")
        return octets

    def read_json(self, digest: str) -> Any:
        """Raises Refusal."""
        return _json(self.path_of(digest), self.read(digest))

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
            _check_folder(path.parent)
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
        for folder in self.folders():
            _sync(folder)
        _sync(self.folder / "objects")

    def folders(self) -> list[Path]:
        """Those of the objects. Raises Refusal for what is none."""
        folders = [
            path for path in (self.folder / "objects").iterdir() if _FOLDER.fullmatch(path.name)
        ]
        for path in folders:
            _check_folder(path)
        return folders

    @property
    def waiting(self) -> int:
        """Objects that are not durable yet."""
        return len(self._new)

    # --- points

    def points(self) -> list[str]:
        """Their names, the oldest first."""
        names = (path.stem for path in (self.folder / "points").glob("*.json"))
        return sorted(name for name in names if _POINT.fullmatch(name))

    def point(self, name: str) -> Mapping[str, Any]:
        """Raises Refusal."""
        path = self.folder / "points" / f"{name}.json"
        if "/" in name or (not path.is_symlink() and not path.exists()):
            raise Refusal(Code.NONEXISTENT, f"{self.folder} has no point {name}")
        fields = _json(path, read_file(path, MAX_JSON))
        if not isinstance(fields, dict) or fields.get("format") != 1:
            raise Refusal(Code.CANNOT, f"{path} is not a point of a backup that this version reads")
        return fields

    def keep_point(self, name: str, fields: Mapping[str, Any]) -> str:
        """Write it, durable: all that it names is. Its name, which is another where that is taken."""
        path, number = self.folder / "points" / f"{name}.json", 1
        while path.exists():
            number += 1
            path = self.folder / "points" / f"{name}-{number}.json"
        self.replace(path, json.dumps(fields).encode())
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
        path = self.path_of(digest)
        _check_folder(path.parent)
        if path.is_symlink() or path.exists():
            path.replace(self.folder / "damaged" / digest)

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
            new = self.folder / "objects" / "new"
            _check_folder(new)
            for left in new.iterdir():
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
    if not _is_file(mark):
        text = f"{folder} is not a backup of murder: it has no file FORMAT"
        raise Refusal(Code.NONEXISTENT, text)
    if read_file(mark, MAX_JSON) != FORMAT:
        raise Refusal(Code.CANNOT, f"{mark}: a format that this version does not read")
    for name in ("objects", "objects/new", "points", "restores", "damaged"):
        _check_folder(folder / name)
    return Vault(folder)


def digest_of_file(path: Path) -> tuple[str, int]:
    """SHA-256, and how many octets. For a thread. Raises Damaged, OSError."""
    with _opened(path, MAX_OBJECT) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def read_file(path: Path, most: int) -> bytes:
    """A file that others may have put there. Raises Damaged where it is none, or too long; OSError."""
    with _opened(path, most) as file:
        return file.read(most)


def _opened(path: Path, most: int) -> BufferedReader:
    """No link is followed, and nothing is waited for: a pipe is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(Code.CANNOT, f"{path} is missing") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise
        raise Damaged(Code.CANNOT, f"{path} is no file") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        os.close(descriptor)
        what = "too long" if stat.S_ISREG(status.st_mode) else "no file"
        raise Damaged(Code.CANNOT, f"{path} is {what}")
    return BufferedReader(FileIO(descriptor))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_folder(path: Path) -> None:
    """Raises Refusal: what is done in a folder would be done where a link leads."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_folder = False
    if not is_folder:
        raise Refusal(Code.CANNOT, f"{path} is no folder: this backup has been tampered with")


def _json(path: Path, octets: bytes) -> Any:
    """Raises Refusal."""
    try:
        return json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise Refusal(Code.CANNOT, f"{path} cannot be read: {error}") from None


@contextlib.contextmanager
def _held(path: Path, lock: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
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
