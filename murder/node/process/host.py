"""What a node asks of the system: whom it runs as, how many files it may open, whom it tells that it is there."""

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import socket
from collections import deque
from typing import Final

from murder.config import Config, ConfigError, Problem

# A TLS connection's buffer in uvloop has 256 KiB, of which a mailer's few octets touch a page or two; what the loop reads
# without TLS has 250 KiB at most, and stays below
LARGE_OCTETS: Final = 256 * 1024
MOST_LARGE: Final = 30_000  # blocks of them; Linux allows a process 65,530 mappings of all kinds
KEPT_FREE_OCTETS: Final = 8 * 1024 * 1024  # at the end of the heap, for the next burst
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h

MOST_UNSAID: Final = 4  # states that systemd has not been told of

OF_ROOT: Final = ("MURDER_CACHE", "CACHE_DIRECTORY", "XDG_CACHE_HOME")  # folders of the user before


class Notifier:
    """Tells systemd, or whoever set NOTIFY_SOCKET, how we are (sd_notify(3)). Never waits: whoever has not read for long
    hears what was told last when they have."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._unsaid: deque[bytes] = deque(maxlen=MOST_UNSAID)
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1_000_000 / 2 if usec.isdigit() else None

    def tell(self, *states: str) -> None:
        if self._address:
            self._unsaid.append("\n".join(states).encode())
            self._say()

    def pulse(self) -> None:
        """Our loop turns: tell that to whoever wants to know, or else what could not be told before."""
        if self._unsaid:
            self._say()
        elif self.watchdog_s is not None:
            self.tell("WATCHDOG=1")

    def _say(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as sock:
                while self._unsaid:
                    sock.sendto(self._unsaid[0], self._address)
                    self._unsaid.popleft()
        except BlockingIOError:
            pass  # their queue is full
        except OSError:
            self._unsaid.clear()  # nobody is there


def become(config: Config) -> bool:
    """Make the data folder and become `node.user`, if we are root; whether we did. Raises ConfigError.

    The archive's cache of unpacked files is root's then, which that user cannot read: what is not imported yet must be
    left to workers, which start anew as that user and make their own.
    """
    os.umask(0o077)
    data, name = config.node.data, config.node.user
    try:
        made = not data.exists()
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not name or os.geteuid() != 0 or pwd.getpwnam(name).pw_uid == 0:
            return False
        account = pwd.getpwnam(name)
        if made:
            os.chown(data, account.pw_uid, account.pw_gid)
        os.initgroups(name, account.pw_gid)
        os.setgid(_group_of(config, account.pw_gid))
        os.setuid(account.pw_uid)
        for variable in OF_ROOT:
            os.environ.pop(variable, None)
        os.environ["HOME"] = account.pw_dir
        return True
    except KeyError:
        raise ConfigError([Problem(config.file, "node.user", f"no such user {name!r}")]) from None
    except OSError as error:
        text = f"{error.filename or data}: {error.strerror}"
        raise ConfigError([Problem(config.file, "node.data", text)]) from None


def _group_of(config: Config, default: int) -> int:
    name = config.node.group
    if not name:
        return default
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError([Problem(config.file, "node.group", f"no such group {name!r}")]) from None


def raise_file_limit() -> None:
    """Every connection is a descriptor; take what the system allows without asking."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_large_blocks_apart() -> None:
    """Blocks of `LARGE_OCTETS` are mapped each for itself, and given back. glibc does so until the first of them is freed;
    later ones it cuts from the heap, where pages that others have used stay with a connection that needs none of them.
    Other C libraries have no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_OCTETS)
        mallopt(M_MMAP_MAX, MOST_LARGE)
        mallopt(M_TRIM_THRESHOLD, KEPT_FREE_OCTETS)
