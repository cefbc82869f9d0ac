"""What the nodes' answers mean: a line for each node and role, and what somebody should look at, with the mending step.

Asks nobody: `nodes` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from murder import __version__
from murder.admin.operate.running.nodes import NodeAnswers, demo_of
from murder.model.versions import misfit
from murder.wire.nodes.control_answers import ProcessFacts, RoleFacts, Status

DAY_S: Final = 86400.0
CLOCK_S: Final = 5.0  # nodes' clocks may differ by so much
FREE_PART: Final = 0.05
# Linux gives 1,024 to whoever does not ask, and 4,096 or more to who does
FEW_DESCRIPTORS: Final = 1000
UPGRADE: Final = (
    "bring all nodes to one: the master, then backends, then frontends (`murder help upgrade`)"
)
RESTART: Final = "`systemctl restart murder` there, when it suits"


class Problem(NamedTuple):
    """What somebody should look at, and the mending step."""

    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what}: {self.cure}"


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node and role, summed over its workers."""

    node: str
    role: str
    version: str
    workers: int
    uptime_s: float
    connections: int
    sessions: int
    mailboxes: int
    cpu_s: float
    memory_kib: int
    lag_s: float | None
    disk_used: float | None
    problems: Sequence[Problem]


def lines_of(nodes: Sequence[NodeAnswers], now: float) -> list[NodeLine]:
    """A line for each role of each node that answered."""
    made = []
    for node in nodes:
        for role, statuses in sorted(node.by_role.items()):
            made.append(_line_of(node, role, statuses, now))
    return made


def _line_of(node: NodeAnswers, role: str, statuses: Sequence[Status], now: float) -> NodeLine:
    copies = [status.role.copy for status in statuses if status.role.copy is not None]
    lags = [copy.lag_s for copy in copies if copy.lag_s is not None]
    first = statuses[0].process
    return NodeLine(
        node.name,
        role,
        first.version,
        len(statuses),
        min(status.process.uptime_s for status in statuses),
        sum(status.process.connections for status in statuses),
        sum(status.role.sessions or 0 for status in statuses),
        max(status.role.mailboxes or 0 for status in statuses),
        sum(status.process.cpu_s for status in statuses),
        sum(status.process.memory_kib for status in statuses),
        max(lags) if lags else None,
        _disk_used(statuses),
        problems_of({role: statuses}, now, node.place),
    )


def _disk_used(statuses: Sequence[Status]) -> float | None:
    """The part of the disk that has the smallest left: that of its data, or of its mail."""
    pairs = [(status.process.disk_free, status.process.disk_size) for status in statuses]
    pairs += [
        (status.role.store_disk_free or 0, status.role.store_disk_size or 0) for status in statuses
    ]
    return max((1 - free / size for free, size in pairs if size), default=None)


def findings(
    told_by: Sequence[NodeAnswers], lines: Sequence[NodeLine]
) -> list[tuple[str, Problem]]:
    """Whose problem, and which; those that do not answer first."""
    problems = [(node.name, Problem(node.problem, node.cure)) for node in told_by if node.problem]
    problems += [(line.node, problem) for line in lines for problem in line.problems]
    problems += namesakes(told_by)
    versions = sorted({line.version for line in lines})
    if len(versions) > 1:
        what = f"different versions run: {', '.join(versions)}"
        problems.append(("", Problem(what, UPGRADE)))
    return list(dict.fromkeys(problems))


def namesakes(told_by: Sequence[NodeAnswers]) -> list[tuple[str, Problem]]:
    """Nodes that call themselves as another one does: what the list says of one is taken for the other."""
    seen: dict[str, NodeAnswers] = {}
    problems = []
    for node in told_by:
        if node.answers and (other := seen.setdefault(node.name, node)) is not node:
            begun, others = _begun(node), _begun(other)
            if not any(
                abs(at - others.get(pid, at + DAY_S)) < CLOCK_S for pid, at in begun.items()
            ):
                what = f"two nodes call themselves so, at {other.place} and {node.place}"
                cure = "give one of them a name of its own (`name` in its [node]), and a certificate for that"
                problems.append((node.name, Problem(what, cure)))
    return problems


def _begun(node: NodeAnswers) -> dict[int, float]:
    """When each of its processes began, by their numbers."""
    facts = [status.process for status in node.statuses]
    return {process.pid: (process.now or 0.0) - process.uptime_s for process in facts}


class Meter:
    """Processor time since the look before."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], tuple[float, float]] = {}

    def measure(self, lines: Sequence[NodeLine], now: float) -> dict[tuple[str, str], float]:
        """In percent of one processor, by node and role."""
        parts = {}
        for line in lines:
            key = (line.node, line.role)
            if key in self._before:
                spent, at = self._before[key]
                parts[key] = 100 * max(0.0, line.cpu_s - spent) / max(now - at, 0.001)
            self._before[key] = (line.cpu_s, now)
        return parts


def problems_of(statuses: Mapping[str, Sequence[Status]], now: float, place: str) -> list[Problem]:
    """What somebody should look at, of the node there, by what each role's processes say."""
    problems: dict[Problem, None] = {}
    for role, of_role in statuses.items():
        if (most := max(process.process.processes for process in of_role)) > len(of_role):
            what = f"only {len(of_role)} of the {role}'s {most} processes answer"
            problems[Problem(what, "has it just been started? else its log tells what died")] = None
        for status in of_role:
            problems.update(dict.fromkeys(_problems(status, now, place)))
    return list(problems)


def certificate_problem(whose: str, until: float, now: float) -> Problem | None:
    """A certificate that ends within a month, or has ended."""
    days = (until - now) / DAY_S
    cure = "`murder ca issue NAME --role ROLE` again, copy both files, `murder reload` there"
    if days < 0:
        since = "today" if days > -1 else "yesterday" if days > -2 else f"{-days:.0f} days ago"
        return Problem(f"{whose} ended {since}", cure)
    return Problem(f"{whose} ends in {days:.0f} days", cure) if days < 30 else None


def _problems(status: Status, now: float, place: str) -> list[Problem]:
    process, role = status.process, status.role
    said = []
    until = process.certificate_until
    if until is not None and (ending := certificate_problem("its certificate", until, now)):
        said.append(ending)
    if why := misfit(process.version, __version__):
        said.append(Problem(why, "bring all nodes to one version"))
    if process.replaced:
        what = "its program file was replaced, and it runs what it was started with"
        demo = demo_of(place)
        cure = f"end the demo, and start it anew: `murder demo --dir {demo}`"
        said.append(Problem(what, cure if demo else RESTART))
    if abs(status.clock_off_s) > CLOCK_S:
        said.append(
            Problem(
                f"its clock differs from this host's by {status.clock_off_s:.0f} s",
                "run NTP (chrony, systemd-timesyncd) on both",
            )
        )
    said += _disk_problems(process, role)
    if 0 < process.descriptors_most < 1.25 * process.descriptors:
        said.append(Problem("it runs out of file descriptors", "raise LimitNOFILE in its unit"))
    elif 0 < process.descriptors_most < FEW_DESCRIPTORS:
        what = f"it may have {process.descriptors_most} file descriptors, of which each connection takes one or two"
        said.append(Problem(what, "raise LimitNOFILE in its unit (`ulimit -Hn` in a shell)"))
    if role.store_problem:
        cure = "see that its file system is mounted there, writable, and has room; no restart is needed"
        said.append(Problem(role.store_problem, cure))
    if number := role.conflicts:
        what = "1 mailbox was" if number == 1 else f"{number} mailboxes were"
        said.append(Problem(f"{what} wanted by two backends", "`murder ctl conflicts`"))
    if number := role.lacking:
        what = "1 mailbox" if number == 1 else f"{number} mailboxes"
        said.append(
            Problem(
                f"it has lost {what} that the master names there: mail for them waits",
                "`murder ctl restore backend NAME --from DIR` (`murder help backup`)",
            )
        )
    if number := role.quarantined:
        what = "1 mailbox rests" if number == 1 else f"{number} mailboxes rest"
        said.append(
            Problem(f"{what} in quarantine: another server has it", "`murder ctl conflicts`")
        )
    said += _list_problems(role)
    for server in role.down or ():
        said.append(
            Problem(f"it cannot reach {server}", "start that backend; look at its log if it runs")
        )
    if number := role.moves_failed:
        what = "a move has" if number == 1 else f"{number} moves have"
        said.append(Problem(f"{what} failed", "`murder ctl move status`"))
    return said


def _disk_problems(process: ProcessFacts, role: RoleFacts) -> list[Problem]:
    """Once where its mail is on the disk of its data, as it mostly is."""
    cure = (
        "make room, or move users away while some KiB are left (`murder ctl mailbox move`); what they leave "
        "goes with `murder ctl move forget`"
    )
    said = []
    free, size = process.disk_free, process.disk_size
    if is_full := size and free < FREE_PART * size:
        said.append(Problem(f"its disk has {free >> 20} MiB left", cure))
    mail_free, mail_size = role.store_disk_free or 0, role.store_disk_size or 0
    if mail_free < FREE_PART * mail_size and not (is_full and mail_size == size):
        said.append(Problem(f"the disk of its mail has {mail_free >> 20} MiB left", cure))
    return said


def _list_problems(role: RoleFacts) -> list[Problem]:
    """Of the mailbox list and the way to the master."""
    to_master = "does the master run, and is [mupdate] master right there? its log says more"
    if role.master == "away":
        why = f" ({role.master_problem})" if role.master_problem else ""
        return [Problem(f"it cannot reach the master{why}", to_master)]
    if role.master_problem:
        what = f"it could not compare its mailboxes with the master's: {role.master_problem}"
        return [Problem(what, "its log says since when; it tries again")]
    if (copy := role.copy) is None:
        return []
    why = f" ({copy.list_problem})" if copy.list_problem else ""
    if copy.synchronised is False:
        return [Problem(f"its list has never been complete{why}", to_master)]
    if copy.list != "streaming":
        return [Problem(f"its list is {copy.list}{why}", to_master)]
    if copy.list_problem:
        return [Problem(copy.list_problem, "start the backends; `murder help trouble`")]
    return []
