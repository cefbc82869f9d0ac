"""Passwords that were right a moment ago, so that a mail client's tenth connection asks nobody.

In memory, under a key that only this process has: what is kept is a keyed digest, never a password. A user has one password
here: another that was right puts it out, in all workers of the role. `murder auth flush` touches a file that is looked at
each time.
"""

import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from murder.api.auth import LoginAttempt
from murder.auth.app_passwords import AppPassword
from murder.model.identity import Identity
from murder.net.shared_counter import Counts, Row

MAX_USERS: Final = 20_000  # about 300 octets each
MAX_WAYS: Final = 16  # in which one user comes, where a plugin's answer depends on them
FLUSHED: Final = "auth.flushed"

Way = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Who it is, and which plugin says so, or by which application password."""

    identity: Identity
    plugin: str
    app: AppPassword | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """When the plugins were asked about a password, by the clock of all processes, and behind which flush."""

    stamp: int
    at: float


@dataclass(slots=True)
class _Known:
    digest: bytes
    asked_at: float
    ways: OrderedDict[Way, tuple[Decision, float]] = field(default_factory=OrderedDict)


class Remembered:
    """See the module. `depends_on` are the fields of an attempt that must be the same again."""

    def __init__(
        self,
        remember_s: float,
        depends_on: Collection[str] = (),
        flushed: Path | None = None,
        counts: Counts | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`counts`: where the role's workers tell each other which password was right last."""
        self._remember_s = remember_s
        self._depends_on = tuple(sorted(depends_on))
        self._flushed = flushed
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._common_key = counts.key if counts is not None else b""
        self._board = counts.passwords(self._is_dead) if counts is not None else None
        self._users: OrderedDict[bytes, _Known] = OrderedDict()
        self._stamp = self._look()

    def find(self, attempt: LoginAttempt, user: str, password: bytes) -> Decision | None:
        """What was decided about the same, if it counts still."""
        self._look_again()
        name = self._digest(user.encode("utf-8", "surrogatepass"))
        known = self._users.get(name)
        if known is None:
            return None
        digest = self._digest(name + password)
        entry = known.ways.get(self._way(attempt))
        if entry is None or not hmac.compare_digest(digest, known.digest):
            return None
        if self._is_put_out(user, password, known.asked_at):
            del self._users[name]
            return None
        decision, until = entry
        if until <= self._clock():
            del known.ways[self._way(attempt)]
            return None
        self._users.move_to_end(name)
        return decision

    def keep(
        self, attempt: LoginAttempt, user: str, password: bytes, decision: Decision, asked: Question
    ) -> None:
        """It was right. `asked` is `question` as it was before that was known: a flush in between wins."""
        if self._remember_s <= 0 or asked.stamp != self.question.stamp:
            return
        until = self._clock() + self._remember_s
        expires_at = decision.identity.expires_at
        if expires_at is not None:
            until = min(until, expires_at)
        name = self._digest(user.encode("utf-8", "surrogatepass"))
        digest = self._digest(name + password)
        known = self._users.get(name)
        if known is None or not hmac.compare_digest(known.digest, digest):
            known = self._users[name] = _Known(digest, asked.at)
        known.asked_at = asked.at
        if self._board is not None:
            self._board.put(user, Row(self._mark(user, password), asked.at))
        known.ways[self._way(attempt)] = (decision, until)
        if len(known.ways) > MAX_WAYS:
            known.ways.popitem(last=False)
        self._users.move_to_end(name)
        if len(self._users) > MAX_USERS:
            self._users.popitem(last=False)

    @property
    def question(self) -> Question:
        """One that is asked now."""
        self._look_again()
        return Question(self._stamp, time.monotonic())

    def _is_put_out(self, user: str, password: bytes, asked_at: float) -> bool:
        """Whether another worker has found another one right since."""
        board = self._board
        if board is None:
            return False
        later = [row for row in board.rows(user, of_others=True) if row.when > asked_at]
        return bool(later) and any(row.count != self._mark(user, password) for row in later)

    def _mark(self, user: str, password: bytes) -> int:
        name = user.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._common_key, name + b"\0" + password, "sha256")
        return int.from_bytes(digest[:4], "big")

    def _is_dead(self, row: Row) -> bool:
        return row.when + self._remember_s < time.monotonic()

    def _look_again(self) -> None:
        """Forget all where that was asked for."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._users.clear()

    def _look(self) -> int:
        if self._flushed is None:
            return 0
        try:
            return os.stat(self._flushed).st_mtime_ns
        except OSError:
            return 0

    def _way(self, attempt: LoginAttempt) -> Way:
        return tuple(getattr(attempt, name, None) for name in self._depends_on)

    def _digest(self, octets: bytes) -> bytes:
        return hmac.digest(self._key, octets, "sha256")


def flushed_file(data: Path) -> Path:
    """What `flush` touches, in a node's data folder."""
    return data / FLUSHED


def flush(data: Path) -> None:
    """Have all processes of the node with this data folder forget what passwords were right. Raises OSError."""
    file = flushed_file(data)
    data.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    now = max(time.time_ns(), file.stat().st_mtime_ns + 1)
    os.utime(file, ns=(now, now))
