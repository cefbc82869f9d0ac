"""The archive's warm start: find the unpacked files, see that nobody touched them, and run murder from there.

Shared objects cannot be loaded out of a zip file, and importing from one is slow, so everything is unpacked
once into a directory that only its owner can write; `unpack` does that and is not even loaded when there is
nothing to do.

Is it still what was unpacked? Hashing all of it takes some 60 ms, more than the rest of the start. So we do as
git does with its index: the record beside the directory holds, for every file and directory, its hash and
the size, mode, times of change of contents and inode (ctime) seen when it was last hashed. No program can set a
ctime, so a file with the same stamp still has the same contents; any difference, a file that is missing, or one too many
(its directory's stamp differs) leads to `unpack`, which hashes everything and mends what is wrong. That takes about
2 ms. It protects from accidents and from other users, not from someone who runs as this user: they could as
well change the archive.
"""

from __future__ import annotations  # typing takes as long to import as everything here to run

import importlib
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

RECORD_HEAD = "murder cache record 1"
# a running murder holds a shared lock on it, so that nobody clears its files away
USED_SUFFIX = ".used"
RECORD_SUFFIX = ".record"
TOUCH_AFTER_S = 86400.0
NOBODY = 65534  # in a user namespace: whoever has no place in it, as the host's root
MEND = "set MURDER_CACHE to a directory of yours that has 100 MB free"


class Problem(Exception):
    """What keeps the archive from starting, as a sentence for whoever started it."""


def main(loader: Any) -> NoReturn:
    """Run murder from the archive that `loader`, a zipimporter, reads; ends the process."""
    try:
        home = prepare(loader)
    except Problem as problem:
        print(f"murder: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.path[0] = home
    sys.argv[0] = "murder"
    if sys.flags.optimize:  # compiled files for -O are not among those unpacked; don't add any
        sys.dont_write_bytecode = True
    entry = importlib.import_module("murder.__main__")
    entry.archive = os.path.abspath(loader.archive)  # type: ignore[attr-defined] # a module has no type
    sys.exit(entry.main())


def prepare(loader: Any) -> str:
    """The directory with everything unpacked and verified. Raises Problem."""
    facts = facts_of(loader)
    root = cache_root()
    home = os.path.join(root, f"{facts['digest'][:16]}-{tag()}")
    try:
        check_owner(root)
        check_above(root)
        check_owner(home)
        fresh = is_fresh(home)
    except FileNotFoundError:
        fresh = False
    except OSError as error:
        raise Problem(f"cannot use the cache {root}: {error.strerror}; {MEND}") from None
    if not fresh:
        unpack = importlib.import_module("murder_unpack")
        unpack.ensure(loader, facts, root, home)
    hold(home)
    return home


def tag() -> str:
    """The file set for this Python on this machine, e.g. cp312-x86_64. Raises Problem when there can be none."""
    if sys.implementation.name != "cpython" or "t" in sys.abiflags:
        raise Problem("needs the usual CPython; PyPy and free-threaded builds are not supported")
    return f"cp{sys.version_info[0]}{sys.version_info[1]}-{os.uname().machine}"


def facts_of(loader: Any) -> dict[str, str]:
    """What build.py said of this archive. Raises Problem if it cannot run on this Python and machine."""
    text = loader.get_data(os.path.join(loader.archive, "build.txt")).decode()
    facts = dict(line.split(" ", 1) for line in text.splitlines())
    sets = [name.split("-") for name in facts["sets"].split()]
    machine = os.uname().machine
    if facts["platform"] != sys.platform or machine not in [its for _, its in sets]:
        known = " or ".join(sorted({its for _, its in sets}))
        raise Problem(
            f"this archive was built for {facts['platform']} on {known}, and this is {sys.platform} on {machine}"
        )
    if tag() not in facts["sets"].split():
        known = ", ".join(f"{name[2]}.{name[3:]}" for name, its in sets if its == machine)
        raise Problem(
            f"this archive has files for Python {known}; this is "
            f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable}): run it with one of those, "
            "or build it again with this one"
        )
    return facts


def cache_root() -> str:
    """Where to unpack: what the environment names, else the user's cache, else a directory of ours in /tmp."""
    environ = os.environ
    if given := environ.get("MURDER_CACHE"):
        return os.path.join(os.path.abspath(given), "murder")
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):  # systemd's may be a list
        first = environ.get(name, "").partition(":")[0]
        if os.path.isabs(first):
            return os.path.join(first, "murder")
    user = os.geteuid()
    home = environ.get("HOME", "")
    cache = os.path.join(home, ".cache")
    # `sudo murder` may keep the HOME of another: what root leaves there its owner could not use.
    if os.path.isabs(home) and (
        is_owned(cache, user) or (is_owned(home, user) and os.access(home, os.W_OK | os.X_OK))
    ):
        return os.path.join(cache, "murder")
    return os.path.join(environ.get("TMPDIR") or "/tmp", f"murder-{user}")


def is_owned(path: str, user: int) -> bool:
    try:
        return os.stat(path).st_uid == user
    except OSError:
        return False


def check_owner(path: str) -> None:
    """Raise Problem unless `path` is a directory that only we can write; FileNotFoundError if there is none."""
    seen = os.lstat(path)
    if not stat.S_ISDIR(seen.st_mode):
        wrong = "is not a directory"
    elif seen.st_uid != os.geteuid():
        wrong = f"belongs to user id {seen.st_uid}, not to {os.geteuid()}"
    elif seen.st_mode & 0o022:
        wrong = f"can be written by others (mode {stat.S_IMODE(seen.st_mode):04o})"
    else:
        return
    raise Problem(
        f"the cache {path} {wrong}, so its files cannot be trusted; remove it, or set MURDER_CACHE"
    )


def check_above(path: str) -> None:
    """Raise Problem where somebody else could put another directory in its place: what leads to `path`, as it is spelt and
    as it is, belongs to root or to us, and where everyone can write, only owners rename (/tmp)."""
    for start_at in {path, os.path.realpath(path)}:
        above = os.path.dirname(start_at)
        while True:
            seen = os.lstat(above)
            if seen.st_uid not in (0, os.geteuid(), NOBODY):
                raise Problem(
                    f"{above} belongs to user id {seen.st_uid}, who could put another cache into it; {MEND}"
                )
            open_to_all = seen.st_mode & stat.S_IWOTH and not seen.st_mode & stat.S_ISVTX
            if open_to_all and stat.S_ISDIR(seen.st_mode):
                raise Problem(
                    f"everyone can write in {above}, so the cache below it cannot be trusted; "
                    f"take that right away (chmod o-w), or {MEND}"
                )
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)


def stamp(path: str) -> str:
    """What changes when somebody touches the file or, for a directory, adds to it or takes from it."""
    seen = os.lstat(path)
    size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
    return f"{seen.st_mode:o}:{size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_uid}"


def read_record(home: str) -> list[tuple[str, str, str]] | None:
    """(stamp, hash, path) of all that was unpacked, in order; None when there is no whole record."""
    try:
        with open(home + RECORD_SUFFIX, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return None
    if lines[0] != RECORD_HEAD or lines[-2:] != [f"end {len(lines) - 3}", ""]:
        return None
    rows = [line.split(" ", 2) for line in lines[1:-2]]
    return [(row[0], row[1], row[2]) for row in rows] if all(len(r) == 3 for r in rows) else None


def is_fresh(home: str) -> bool:
    """True if all that was unpacked is there as it was when we last looked at every octet of it."""
    rows = read_record(home)
    if not rows:
        return False
    try:
        return all(stamp(f"{home}/{path}") == seen for seen, _, path in rows)
    except OSError:
        return False


def hold(home: str) -> None:
    """Mark the files as in use for as long as this process lives. Where that cannot be done nothing is lost."""
    try:
        import fcntl

        held = os.open(home + USED_SUFFIX, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if time.time() - os.fstat(held).st_mtime > TOUCH_AFTER_S:
            os.utime(held)
    except (ImportError, OSError):
        pass
