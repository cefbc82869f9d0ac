"""The archive's cold start: unpack everything, or mend what is not as it was unpacked.

All of it happens under one lock in the cache, in a directory beside the final one that is renamed when complete, so
that two first starts at once both work and a killed one leaves nothing but a directory that the next clears away.
"""

import contextlib
import errno
import hashlib
import importlib
import io
import os
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

start: Any = importlib.import_module("murder_start")

UNPACKING = ".unpacking-"  # a directory that is not complete
KEEP_S = 30 * 86400.0  # files of other archives are cleared away when not used for so long
SHOWN = 5  # files named in a warning


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file as the archive has it: its hash, and the payload that holds it."""

    sha256: str
    payload: str


class Archive:
    """What the archive brings for this Python; payloads are opened when something is read from them."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._payloads: dict[str, zipfile.ZipFile] = {}
        sets = {"any", os.uname().machine, start.tag()}
        self.files: dict[str, Wanted] = {}
        for line in self._data("manifest.txt").decode().splitlines():
            sha256, payload, path = line.split(" ", 2)
            if payload in sets:
                self.files[path] = Wanted(sha256, payload)

    def _data(self, name: str) -> bytes:
        data: bytes = self._loader.get_data(os.path.join(self._loader.archive, name))
        return data

    def read(self, path: str) -> bytes:
        """The contents of a file. Raises Problem when the archive itself is damaged."""
        wanted = self.files[path]
        try:
            if wanted.payload not in self._payloads:
                data = self._data(f"{wanted.payload}.zip")
                self._payloads[wanted.payload] = zipfile.ZipFile(io.BytesIO(data))
            octets = self._payloads[wanted.payload].read(path)
        except (
            zipfile.BadZipFile,
            zlib.error,
            LookupError,
            EOFError,
            ValueError,
            RuntimeError,
        ) as error:
            raise start.Problem(f"the archive {self._loader.archive} is damaged: {error}") from None
        if hashlib.sha256(octets).hexdigest() != wanted.sha256:
            raise start.Problem(f"the archive {self._loader.archive} is damaged at {path}")
        return octets


def ensure(loader: Any, facts: Mapping[str, str], root: str, home: str) -> None:
    """Make `home` hold all files for this Python, verified octet by octet. Raises Problem."""
    try:
        make_root(root)
        check_machine(facts, root)
        with locked(root):
            if start.is_fresh(home):  # somebody else was faster
                return
            archive = Archive(loader)
            if os.path.lexists(home):
                start.check_owner(home)
                warn(home, mend(archive, home, home))
            else:
                unpack(archive, root, home)
            write_record(archive, home)
            clear_unused(root, home)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and is_whole(loader, home):
            return  # complete and untouched, in a place where we cannot write: a read-only image
        what = error.strerror or str(error)
        raise start.Problem(f"cannot unpack into {root}: {what}; {start.MEND}") from None


def make_root(root: str) -> None:
    """Make the cache, for its owner only, in a place where others cannot swap it."""
    parent = os.path.dirname(root)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(root, 0o700)
    start.check_owner(root)
    start.check_above(root)


def check_machine(facts: Mapping[str, str], root: str) -> None:
    """Say clearly what would otherwise come out of the dynamic linker. Raises Problem."""
    if os.statvfs(root).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise start.Problem(f"{root} is mounted noexec, and shared objects go there; {start.MEND}")
    needed = facts.get(f"glibc-{os.uname().machine}")
    if needed:
        name = (
            os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else ""
        ) or "another libc"
        have = name.removeprefix("glibc ").split(".")
        if not all(part.isdigit() for part in have):
            raise start.Problem(f"this archive was built for glibc {needed}, and this is {name}")
        if [int(part) for part in have] < [int(part) for part in needed.split(".")]:
            raise start.Problem(f"this archive needs glibc {needed}, and this machine has {name}")


@contextlib.contextmanager
def locked(root: str) -> Iterator[None]:
    """Hold the cache's lock. Without locks (some network file systems) rename still decides who was first."""
    lock = os.open(
        os.path.join(root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def unpack(archive: Archive, root: str, home: str) -> None:
    """Unpack into a directory beside `home`, then rename it."""
    clear_leftovers(root)
    if sys.stderr.isatty():
        print("murder: first start, unpacking ...", file=sys.stderr)
    unpacking = os.path.join(root, f"{UNPACKING}{os.path.basename(home)}-{os.getpid()}")
    os.mkdir(unpacking, 0o700)
    try:
        mend(archive, unpacking, home)
        os.rename(unpacking, home)
    except BaseException as error:
        shutil.rmtree(unpacking, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return  # no locks here, and somebody else was faster
        raise
    sync(root)


def clear_leftovers(root: str) -> None:
    """Remove what killed starts left. We hold the lock; where there are no locks, an hour is long enough."""
    for entry in os.scandir(root):
        if entry.name.startswith(UNPACKING):
            process = entry.name.rpartition("-")[2]
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > 3600
            if old or not is_running(process):
                shutil.rmtree(entry.path, ignore_errors=True)


def is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def mend(archive: Archive, directory: str, final: str) -> list[str]:
    """Make the directory hold exactly what it should, compiled for paths below `final`; what was wrong in it.

    Files are replaced one by one, each at once, so that a murder that runs from here sees no gap.
    """
    hashes = {path: sha256 for _, sha256, path in start.read_record(final) or []}
    wrong = remove_strangers(archive, directory)
    for folder in folders_of(archive):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(directory, folder), 0o700)
    for path, wanted in archive.files.items():
        if hash_of(f"{directory}/{path}") != wanted.sha256:
            wrong.append(path)
            write(f"{directory}/{path}", archive.read(path))
    for path in archive.files:
        if compiled := compiled_path(path):
            seen = hash_of(f"{directory}/{compiled}")
            if seen is None or seen != hashes.get(compiled) or path in wrong:
                if compiled in hashes:
                    wrong.append(compiled)
                compile_file(directory, final, path, compiled)
    for folder in ("", *folders_of(archive)):
        sync(os.path.join(directory, folder))
    return wrong


def is_whole(loader: Any, home: str) -> bool:
    """True if the files are there and right, though we may not write a record that says so."""
    with contextlib.suppress(OSError):
        archive = Archive(loader)
        hashes = {path: sha256 for _, sha256, path in start.read_record(home) or []}
        right = all(hash_of(f"{home}/{path}") == it.sha256 for path, it in archive.files.items())
        extra = [path for path in contents(home) if path not in archive.files]
        return right and all(hash_of(f"{home}/{path}") == hashes.get(path) for path in extra)
    return False


def folders_of(archive: Archive) -> list[str]:
    """All directories, each after the one it is in."""
    folders = set()
    for path in archive.files:
        if compiled := compiled_path(path):
            path = compiled
        while path := os.path.dirname(path):
            folders.add(path)
    return sorted(folders)


def compiled_path(path: str) -> str | None:
    """Where Python looks for the compiled form of a module."""
    if not path.endswith(".py"):
        return None
    folder, name = os.path.split(path)
    return os.path.join(folder, "__pycache__", f"{name[:-3]}.{sys.implementation.cache_tag}.pyc")


def compile_file(directory: str, final: str, path: str, compiled: str) -> None:
    """Compile a module; Python takes the result without looking at the source again (PEP 552)."""
    import py_compile

    try:
        py_compile.compile(
            f"{directory}/{path}",
            cfile=f"{directory}/{compiled}",
            dfile=f"{final}/{path}",
            doraise=True,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except py_compile.PyCompileError:  # for another Python; nothing imports it here
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{compiled}")


def contents(directory: str) -> Iterator[str]:
    """The relative paths of all that is in a directory and is no directory itself."""
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*names, *links):
            yield os.path.relpath(os.path.join(folder, name), directory)


def remove_strangers(archive: Archive, directory: str) -> list[str]:
    """Remove what we did not unpack, or what stands where something of another kind should."""
    wanted = set(archive.files) | {c for path in archive.files if (c := compiled_path(path))}
    removed = []
    for path in list(contents(directory)):
        if path not in wanted or os.path.islink(f"{directory}/{path}"):
            os.unlink(f"{directory}/{path}")
            removed.append(path)
    for path in wanted:
        if os.path.isdir(f"{directory}/{path}"):
            shutil.rmtree(f"{directory}/{path}")
            removed.append(path)
    return removed


def hash_of(path: str) -> str | None:
    """The hash of a plain file of ours that only we can write; None for anything else."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    with open(file, "rb") as opened:
        seen = os.fstat(file)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            return None
        return hashlib.sha256(opened.read()).hexdigest()


def write(path: str, octets: bytes) -> None:
    """Write a file, whole or not at all."""
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(file, "wb") as opened:
        opened.write(octets)
        opened.flush()
        os.fsync(file)
    os.replace(new, path)


def sync(directory: str) -> None:
    """Make the names in a directory durable, where the file system has that."""
    with contextlib.suppress(OSError):
        file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def write_record(archive: Archive, home: str) -> None:
    """Note hash and stamp of everything, for the next start; `start` tells why that is enough."""
    rows = [(path, wanted.sha256) for path, wanted in archive.files.items()]
    for path in archive.files:
        compiled = compiled_path(path)
        if compiled and (sha256 := hash_of(f"{home}/{compiled}")):
            rows.append((compiled, sha256))
    rows += [(folder, "-") for folder in (".", *folders_of(archive))]
    lines = [f"{start.stamp(f'{home}/{path}')} {sha256} {path}" for path, sha256 in rows]
    text = "\n".join([start.RECORD_HEAD, *lines, f"end {len(lines)}", ""])
    write(home + start.RECORD_SUFFIX, text.encode("utf-8", "surrogateescape"))
    used = home + start.USED_SUFFIX  # never replaced: others hold locks on it
    os.close(os.open(used, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    os.utime(used)


def warn(home: str, wrong: list[str]) -> None:
    """Say what was not as we unpacked it."""
    if not wrong:
        return
    names = ", ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" if wrong[SHOWN:] else "")
    print(
        f"murder: warning: the cache {home} was changed since it was unpacked; restored: {names}",
        file=sys.stderr,
    )


def clear_unused(root: str, home: str) -> None:
    """Remove the files of other archives that nobody runs and nobody ran for long."""
    import fcntl

    for entry in list(os.scandir(root)):
        other = entry.path.removesuffix(start.USED_SUFFIX)
        if other == entry.path or other == home or time.time() - entry.stat().st_mtime < KEEP_S:
            continue
        with contextlib.suppress(OSError), open(entry.path, "rb") as used:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in (other + start.RECORD_SUFFIX, entry.path):
                os.unlink(path)
            shutil.rmtree(other, ignore_errors=True)
