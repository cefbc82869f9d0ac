"""Application passwords: made by murder, one for each program of a user, asked before any plugin, revoked one by one.

They are the same on every node that has the file; `murder auth app push` brings it there. A line of it is JSON: what is kept
of a password is a salted digest. That needs no slow hash: 100 random bits are guessed by nobody. When one was used last is
the time of an empty file beside it, on each node its own.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from murder.api.auth import LoginAttempt
from murder.durable import replace_file
from murder.errors import Code, Refusal
from murder.net.turns import Turn

FILE: Final = "app_passwords"
USED: Final = "app_passwords.used"
LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, without those that look alike
LENGTH: Final = 20  # letters of 5 bits
GROUP: Final = 4  # letters between hyphens
MAX_OF_USER: Final = 50
MAX_NAME: Final = 60
MAX_FILE: Final = 64 << 20  # octets
SAID_AGAIN_S: Final = 60.0
FILE_MODE: Final = 0o600
PROTOCOLS: Final = ("imap", "pop3", "lmtp", "sieve")


@dataclass(frozen=True, slots=True)
class AppPassword:
    """One. `only` are the protocols it is for, none: all; times are seconds since 1970."""

    id: str
    user: str
    name: str
    only: tuple[str, ...] = ()
    expires_at: float | None = None
    made_at: float = 0.0
    salt: str = field(default="", repr=False)
    digest: str = field(default="", repr=False)


def parse_line(line: str) -> AppPassword:
    """Raises ValueError."""
    try:
        facts = json.loads(line)
        return AppPassword(**{**facts, "only": tuple(facts.get("only", ()))})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"that is not an application password: {error}") from None


def format_line(password: AppPassword) -> str:
    return json.dumps(asdict(password), sort_keys=True)


def plain(password: bytes) -> bytes:
    """As it was made: people leave hyphens out, and telephones begin with a capital."""
    return password.translate(None, b"- ").lower()


def digest_of(salt: str, password: bytes) -> str:
    return hashlib.sha256(salt.encode() + b"\0" + plain(password)).hexdigest()


class AppPasswords:
    """The file, in memory; read again when it has changed."""

    def __init__(self, data: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file, self._used = data / FILE, data / USED
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._by_user: dict[str, list[AppPassword]] = {}
        self._said: dict[str, float] = {}
        self._reading = asyncio.Lock()

    async def look_again(self, turn: Turn | None = None) -> None:
        """Before `find`, where others wait for their turn: the file may be long, and changes with each password made. Who
        comes meanwhile waits for what it has now."""
        if self._stamp_of_file() == self._stamp:
            return
        async with self._reading:
            stamp = self._stamp_of_file()
            if stamp is None or stamp == self._stamp or stamp[1] > MAX_FILE:
                return  # `find` sees to it, in no time
            turn = turn or Turn()
            by_user: dict[str, list[AppPassword]] = {}
            with (
                contextlib.suppress(OSError, ValueError),
                self._file.open(encoding="utf-8") as file,
            ):
                for line in file:
                    _take_line(line, by_user)
                    if turn.is_over:
                        await turn.rest()
                self._by_user, self._said = by_user, {}
            self._stamp = stamp

    def find(self, attempt: LoginAttempt, user: str, password: bytes) -> AppPassword | None:
        """The one that this is, if it counts now and for this protocol."""
        self._refresh()
        known = self._by_user.get(user.lower())
        if not known or len(plain(password)) != LENGTH:
            return None
        matching = None
        for candidate in known:
            if hmac.compare_digest(digest_of(candidate.salt, password), candidate.digest):
                matching = candidate
        if matching is None or (matching.only and attempt.protocol not in matching.only):
            return None
        if matching.expires_at is not None and matching.expires_at <= self._clock():
            return None
        return matching

    def all(self, user: str = "") -> Sequence[AppPassword]:
        """Of a user, or of everybody."""
        self._refresh()
        names = [user.lower()] if user else sorted(self._by_user)
        return [password for name in names for password in self._by_user.get(name, ())]

    def note_use(self, password: AppPassword) -> None:
        """Somebody is in by it now."""
        now = self._clock()
        if now - self._said.get(password.id, 0.0) < SAID_AGAIN_S:
            return
        self._said[password.id] = now
        with contextlib.suppress(OSError):  # that it cannot be noted keeps nobody out
            self._used.mkdir(mode=0o700, exist_ok=True)
            (self._used / password.id).touch(mode=FILE_MODE)
            os.utime(self._used / password.id, (now, now))

    def used_at(self, password: AppPassword) -> float | None:
        """When it was used on this node last, to the minute."""
        try:
            return (self._used / password.id).stat().st_mtime
        except OSError:
            return None

    def add(
        self, user: str, name: str, only: Sequence[str] = (), expires_at: float | None = None
    ) -> str:
        """Make one, durably; the password, that is told to nobody again. Raises Refusal."""
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise Refusal(Code.CANNOT, f"A name has 1 to {MAX_NAME} printable characters")
        letters = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
        salt = secrets.token_hex(16)
        made = AppPassword(
            secrets.token_hex(8),
            user.lower(),
            name,
            tuple(only),
            expires_at,
            round(self._clock()),
            salt,
            digest_of(salt, letters.encode()),
        )
        with self._locked():
            of_user = self._by_user.setdefault(made.user, [])
            if any(known.name == name for known in of_user):
                raise Refusal(Code.ALREADY_EXISTS, f"{user} has one of that name; revoke it first")
            if len(of_user) >= MAX_OF_USER:
                raise Refusal(Code.LIMIT, f"A user has {MAX_OF_USER} at most; revoke some")
            of_user.append(made)
            self._write()
        return "-".join(letters[at : at + GROUP] for at in range(0, LENGTH, GROUP))

    def revoke(self, user: str, name: str = "") -> int:
        """Forget those of a user by a name, or all of theirs, durably; how many there were."""
        with self._locked():
            known = self._by_user.get(user.lower(), [])
            kept = [password for password in known if name and password.name != name]
            self._by_user[user.lower()] = kept
            if len(kept) < len(known):
                self._write()
        return len(known) - len(kept)

    def take(self, text: str) -> int:
        """Have what another node has, and nothing else; how many that are. Raises Refusal where it is no such file."""
        try:
            taken = _parsed(text)
        except ValueError as error:
            raise Refusal(Code.CANNOT, f"nothing was changed: {error}") from None
        with self._locked():
            self._by_user = taken
            self._write()
        return sum(map(len, taken.values()))

    def text(self) -> str:
        """All of it, for another node."""
        self._refresh()
        return "".join(format_line(password) + "\n" for password in self.all())

    def _stamp_of_file(self) -> tuple[int, int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _refresh(self) -> None:
        stamp = self._stamp_of_file()
        if stamp is None:
            self._stamp, self._by_user = None, {}
        elif stamp != self._stamp and stamp[1] <= MAX_FILE:
            # what cannot be read leaves all as it was
            with contextlib.suppress(OSError, ValueError):
                self._by_user = _parsed(self._file.read_text(encoding="utf-8"))
                self._said = {}
            self._stamp = stamp

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._file.with_name(FILE + ".lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._stamp = None
            self._refresh()
            yield
        finally:
            self._stamp = None
            os.close(lock)

    def _write(self) -> None:
        """Replace the file."""
        lines = [
            format_line(password) + "\n" for known in self._by_user.values() for password in known
        ]
        replace_file(self._file, "".join(lines).encode(), FILE_MODE)


def _parsed(text: str) -> dict[str, list[AppPassword]]:
    by_user: dict[str, list[AppPassword]] = {}
    for line in text.splitlines():
        _take_line(line, by_user)
    return by_user


def _take_line(line: str, by_user: dict[str, list[AppPassword]]) -> None:
    """Raises ValueError."""
    if line.strip():
        password = parse_line(line)
        by_user.setdefault(password.user, []).append(password)


def shown(passwords: AppPasswords, password: AppPassword) -> Mapping[str, object]:
    """What may be told of one."""
    return {
        "user": password.user,
        "name": password.name,
        "only": list(password.only),
        "made_at": password.made_at,
        "expires_at": password.expires_at,
        "used_at": passwords.used_at(password),
    }
