"""Mailboxes that two servers want, as the master has counted and the backends keep them aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.admin.operate.reach import Reach
from murder.admin.operate.running.nodes import NodeAnswers, ask_all
from murder.model.name import MailboxName
from murder.wire.nodes.control_words import AskConflicts


@dataclass(frozen=True, slots=True)
class Conflicts:
    """A row for each, as `wire.nodes.control_answers.parse_conflict` reads it; and the nodes that did not answer."""

    rows: Sequence[Mapping[str, Any]]
    silent: Sequence[NodeAnswers]


async def conflicts(watching: Reach, reach: Reach) -> Conflicts:
    """`watching` asks the nodes, `reach` the master. Raises Refusal, UpstreamFailure."""
    nodes = await ask_all(watching, AskConflicts())
    rows = [await _with_holder(reach, answer) for node in nodes for answer in node.answers]
    return Conflicts(rows, [node for node in nodes if node.problem])


async def _with_holder(reach: Reach, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A backend does not know who has what it keeps aside; the master does."""
    if answer.get("command") != "QUARANTINED":
        return answer
    entry = await reach.master.find(str(answer.get("name", "")).encode("utf-8", "surrogateescape"))
    return {**answer, "holder": entry.server if entry is not None else ""}


async def forget(reach: Reach) -> list[NodeAnswers]:
    """All that were looked at; what is in quarantine, or in doubt, stays."""
    return await ask_all(reach, AskConflicts(forget=True))


def shown_name(reach: Reach, name: str) -> str:
    """As clients call it."""
    return reach.shown(MailboxName(name.encode("utf-8", "surrogateescape")))
