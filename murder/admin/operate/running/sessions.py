"""Who is connected to the nodes, and how their sessions are ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.wire.nodes.control_words import AskSessions, Kick, Wanted


@dataclass(frozen=True, slots=True)
class Connected:
    """A row as its node tells it, for each session; and the nodes that did not answer."""

    rows: Sequence[Mapping[str, Any]]
    silent: Sequence[NodeAnswers]

    @property
    def clients(self) -> int:
        """How many there are: a frontend's at a backend for a client is the same one, unless that alone is meant."""
        return sum(not row.get("proxy") for row in self.rows) or len(self.rows)


async def connected(reach: Reach, wanted: Wanted) -> Connected:
    """Those that are meant; without a protocol it is a connection that nobody has said anything on."""
    nodes = await ask_all(reach, AskSessions(wanted))
    rows = [answer for node in nodes for answer in node.answers]
    return Connected(rows, [node for node in nodes if node.problem])


async def end(reach: Reach, wanted: Wanted) -> list[NodeAnswers]:
    """Clients get BYE, those at frontends first: one whose backend went before would be told of a lost connection.
    Each role is told once, and has one line of it in its audit trail."""
    await ask_all(reach, Kick(wanted, only="frontend"))
    return await ask_all(reach, Kick(wanted, but="frontend"))
