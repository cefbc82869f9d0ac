"""Who is logged in, and by what right they act.

A browser holds a random token, and this process its hash: nothing of a session is on the disk, and a restart ends all. Who
came by a certificate must show it with every request, too.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from murder.admin.operate.moves import Planned
from murder.admin.operate.reach import Reach
from murder.config import Config
from murder.errors import Code, Refusal

TOKEN_OCTETS: Final = 32
MAX_SESSIONS: Final = 200
MAX_SESSIONS_PER_USER: Final = 10
MAX_NOTICES: Final = 5
MAX_GOING: Final = 20
MAX_KEPT_MOVES: Final = 200  # that a session has begun, and shows how they went
BY_PASSWORD: Final = "password"
BY_CERTIFICATE: Final = "certificate"

Clock = Callable[[], float]


@dataclass(slots=True)
class Session:
    """`form_token` stands in every form of theirs. `turn`: one request after the other uses their connections."""

    user: str
    way: str
    password: str = field(repr=False)
    began: float
    seen: float
    form_token: str = field(repr=False)
    notices: list[tuple[str, str]] = field(default_factory=list)
    moves: list[tuple[str, Planned]] = field(default_factory=list)  # with their names
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: set["asyncio.Task[Any]"] = field(default_factory=set)  # requests
    going: set["asyncio.Task[Any]"] = field(default_factory=set)  # what goes on behind them
    _reach: Reach | None = None
    _reached_by: Config | None = None

    def notice(self, text: str, kind: str = "good") -> None:
        """For the next page that they see."""
        self.notices = [*self.notices, (kind, text)][-MAX_NOTICES:]

    def take_notices(self) -> list[tuple[str, str]]:
        notices, self.notices = self.notices, []
        return notices

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it go on behind the request."""
        task = asyncio.get_running_loop().create_task(work)
        self.going.add(task)
        task.add_done_callback(self.going.discard)

    async def reach(self, config: Config) -> Reach:
        """The murder, as they may act on it. Raises ConfigError."""
        if self._reach is None or self._reached_by is not config:
            await self.close_reach()
            self._reach = Reach(acting(config, self), lambda _: "")
            self._reached_by = config
        return self._reach

    def own_reach(self, config: Config) -> Reach:
        """Another, for what goes on behind the request. Raises ConfigError."""
        return Reach(acting(config, self), lambda _: "")

    async def close_reach(self) -> None:
        reach, self._reach = self._reach, None
        if reach is not None:
            await reach.close()

    def check_may_act(self, config: Config) -> None:
        """Raises Refusal where nothing can be changed in their name."""
        if len(self.going) >= MAX_GOING:
            raise Refusal(
                Code.LIMIT, f"{MAX_GOING} of your moves are under way: wait for one of them"
            )
        if self.way == BY_CERTIFICATE and config.operator.certificate is None:
            raise Refusal(
                Code.CANNOT,
                f"This node has no operator's certificate to act by ([operator] certificate in {config.file}): log in "
                "with an administrator's password, or use `murder ctl`",
            )


def acting(config: Config, session: Session) -> Config:
    """As `murder ctl` of theirs would have it: with their own password, else by [operator] of this node."""
    operator = config.operator
    if session.way == BY_PASSWORD:
        operator = replace(
            operator, certificate=None, key=None, user=session.user, password=session.password
        )
    else:
        operator = replace(operator, user="", password="")
    return replace(config, operator=operator)


class Sessions:
    """All of this process. The one that has been silent longest goes where there are too many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_hash: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_hash.values()))

    def begin(self, user: str, way: str, password: str = "") -> tuple[str, Session]:
        """Their token, and the session."""
        own = [key for key, kept in self._by_hash.items() if kept.user == user]
        for several, most in ((own, MAX_SESSIONS_PER_USER), (list(self._by_hash), MAX_SESSIONS)):
            if len(several) >= most:
                self._end(min(several, key=lambda key: self._by_hash[key].seen))
        token = secrets.token_urlsafe(TOKEN_OCTETS)
        now = self._clock()
        session = Session(user, way, password, now, now, secrets.token_urlsafe(TOKEN_OCTETS))
        self._by_hash[_hash(token)] = session
        return token, session

    def find(self, token: str, idle_s: float, most_s: float, *, is_active: bool) -> Session | None:
        """The session of this token; `is_active`: somebody has done something, not a page that looks again by itself."""
        key = _hash(token)
        session = self._by_hash.get(key)
        if session is None:
            return None
        now = self._clock()
        if now - session.seen > idle_s or now - session.began > most_s:
            self._end(key)
            return None
        if is_active:
            session.seen = now
        return session

    def end(self, session: Session) -> None:
        """From now on its token is worth nothing."""
        for key, kept in list(self._by_hash.items()):
            if kept is session:
                self._end(key)

    def sweep(self, idle_s: float, most_s: float) -> None:
        """End those whose time is over, with what they remember."""
        now = self._clock()
        for key, session in list(self._by_hash.items()):
            if now - session.seen > idle_s or now - session.began > most_s:
                self._end(key)

    def _end(self, key: bytes) -> None:
        session = self._by_hash.pop(key)
        session.password = ""
        task = asyncio.ensure_future(session.close_reach())
        session.tasks.add(task)
        task.add_done_callback(session.tasks.discard)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
