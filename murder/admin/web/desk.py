"""What a page is given: the request, who asks, and how the murder is reached.

Pages call `operate`, as the commands of `murder ctl` do, and say with `doing` what they change.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from murder.admin.operate.reach import Reach, reaching
from murder.admin.operate.running.health import Meter, lines_of
from murder.admin.operate.running.nodes import NodeAnswers, ask_all, need_nodes, sees_itself_alone
from murder.admin.web.forms import Fields, format_query
from murder.admin.web.sessions import Session
from murder.config import Config
from murder.errors import BadSyntax, Refusal, UpstreamFailure
from murder.node.pages.http import Response
from murder.trail.audit import AuditLog
from murder.wire.nodes.control_words import AskStatus, Request

HTML: Final = "text/html; charset=utf-8"
WAY: Final = "web"  # by which something was done
FRESH_S: Final = 1.0  # what the nodes have said is told to all who ask within it


@dataclass(frozen=True, slots=True)
class Looked:
    """What the nodes have said at one time; `cpu` by node and role, in percent."""

    told: Sequence[NodeAnswers]
    cpu: dict[tuple[str, str], float]
    at: float
    alone: bool  # the node itself is all that could be asked


class Watch:
    """The nodes, asked as `murder ctl` on this host asks them. Many who look at once ask them once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._turn = asyncio.Lock()
        self._meter = Meter()
        self._last: Looked | None = None

    async def status(self) -> Looked:
        """Raises Refusal where no node is known, ConfigError."""
        async with self._turn:
            if self._last is None or time.time() - self._last.at > FRESH_S:
                async with self.reach() as reach:
                    await need_nodes(reach)
                    nodes = await ask_all(reach, AskStatus())
                    alone = sees_itself_alone(reach, nodes)
                now = time.time()
                cpu = self._meter.measure(lines_of(nodes, now), now)
                self._last = Looked(nodes, cpu, now, alone)
            return self._last

    async def ask(self, request: Request) -> list[NodeAnswers]:
        """As `operate.running.nodes.ask_all`."""
        async with self.reach() as reach:
            await need_nodes(reach)
            return await ask_all(reach, request)

    @asynccontextmanager
    async def reach(self) -> AsyncIterator[Reach]:
        """For what needs no more than the nodes' answers."""
        async with reaching(self.config, lambda _: "") as reach:
            yield reach


class Renders(Protocol):
    """A template, with its words, as a page."""

    def __call__(self, desk: "Desk", name: str, /, **words: object) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """See the module. `path` is without the query; `fields` come from the query, `form` from what was sent."""

    path: str
    fields: Fields
    form: Fields
    peer: str
    session: Session
    config: Config
    watch: Watch
    audit: AuditLog
    renders: Renders

    async def reach(self) -> Reach:
        """The murder, as the one who asks may act on it."""
        return await self.session.reach(self.config)

    def page(self, name: str, /, *, status: int = 200, **words: object) -> Response:
        """A whole page, or a part of one."""
        return Response(status, self.renders(self, name, **words), HTML)

    def go(self, path: str, **fields: str) -> Response:
        """To another page: what was done is not done again when somebody loads it anew."""
        return Response(303, headers={"Location": format_query(path, fields)})

    def field(self, name: str) -> str:
        """What must have been sent. Raises BadSyntax."""
        value = self.form.get(name) or self.fields.get(name, "")
        if not value:
            raise BadSyntax(f"the field {name} is missing")
        return value

    @asynccontextmanager
    async def doing(self, act: str, arguments: str) -> AsyncIterator[None]:
        """Around a change: whether it may be tried, and a line in the audit trail with how it went."""
        self.session.check_may_act(self.config)
        result = "failed"
        try:
            yield
            result = "ok"
        except (Refusal, UpstreamFailure) as problem:
            result = f"refused: {problem}"
            raise
        finally:
            self.note(act, arguments=arguments, result=result)

    def note(self, act: str, **facts: object) -> None:
        """A line in the audit trail."""
        self.audit.note(act, {"user": self.session.user, "peer": self.peer, "way": WAY, **facts})


Handler = Callable[[Desk], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """`is_part`: what a page that stands open asks for by itself; it waits for nothing and keeps no session alive."""

    method: str
    path: str
    handler: Handler
    is_part: bool = False
