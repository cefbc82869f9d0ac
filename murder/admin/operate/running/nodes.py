"""The nodes of a murder as they tell of themselves: this host's by their sockets, others over TLS (`node.control`)."""

import asyncio
import json
import shlex
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from murder.admin.operate.reach import Reach
from murder.errors import BadSyntax, Code, Refusal
from murder.model.protocol import CONTROL
from murder.net.outgoing.connect import why
from murder.net.tls import HalfOpenTls
from murder.node.control.sockets import FOLDER, ask_local, control_folder, sockets_in
from murder.wire.nodes.control_answers import (
    Status,
    parse_chain_checked,
    parse_conflict,
    parse_node_status,
    parse_probed,
    parse_session,
    parse_trail_line,
)
from murder.wire.nodes.control_words import (
    AskChain,
    AskConflicts,
    AskProbe,
    AskSessions,
    AskStatus,
    AskTrail,
    Request,
    format_request,
)

TIMEOUT_S: Final = 10.0
PROBE_S: Final = 90.0  # a node asks one server after the other, and waits for each as a login does
PATIENCE_S: Final = 2.0  # then it is said who is waited for
CONNECT_S: Final = 5.0
FOLLOW_EVERY_S: Final = 0.05
DEFAULT_PORT: Final = CONTROL.keys[0].port
DEMO_SOCKET: Final = "control.sock"  # in the folder of a demo, whose nodes are below it

Answer = Mapping[str, Any]
"""As it came, for `--json`: what it means, `wire.nodes.control_answers` parses."""
PARSED: Final[Mapping[type, Callable[[Answer], object]]] = {
    AskStatus: parse_node_status,
    AskSessions: parse_session,
    AskConflicts: parse_conflict,
    AskProbe: parse_probed,
    AskTrail: parse_trail_line,
    AskChain: parse_chain_checked,
}


@dataclass(slots=True)
class NodeAnswers:
    """What one node said: an answer for each of its processes, or why there is none."""

    place: str
    answers: list[Answer] = field(default_factory=list)
    problem: str = ""
    cure: str = ""

    @property
    def statuses(self) -> list[Status]:
        """The answers to AskStatus."""
        return [parse_node_status(answer) for answer in self.answers]

    @property
    def by_role(self) -> dict[str, list[Status]]:
        """The same, by the role of each."""
        statuses: dict[str, list[Status]] = {}
        for answer in self.answers:
            statuses.setdefault(str(answer["role"]), []).append(parse_node_status(answer))
        return statuses

    @property
    def name(self) -> str:
        """What it calls itself; one of this host that does not answer, by the end of its folder."""
        if self.answers:
            return str(self.answers[0]["node"])
        if self.place.startswith("/") and len(self.place) > 24:
            return "…/" + "/".join(Path(self.place).parts[-2:])
        return self.place


def places(reach: Reach) -> list[str]:
    """`[operator] nodes`, else those that `learn` has found; and this host's own node where it has run, or may have."""
    # as for all folders of the file; a path that is not whole would be taken for a host
    beside = reach.config.file.parent.absolute()
    named = reach.config.operator.nodes or reach.learned or ()
    asked = [str(beside / place) if _is_local(place) else place for place in named]
    own = control_folder(reach.config).absolute()
    try:
        has_own = bool(sockets_in(own))
    except PermissionError:
        has_own = not asked  # asking it tells who may
    if has_own and str(own.parent) not in asked:
        asked.append(str(own.parent))
    return asked


def sees_itself_alone(reach: Reach, nodes: Sequence[NodeAnswers]) -> bool:
    """Whether this host's own node is all that can be asked, and tells of others."""
    config = reach.config
    if config.operator.nodes or reach.learned is not None:
        return False
    master, others = config.mupdate.master, set(config.servers)
    if master is not None:
        others.update(endpoint.host for endpoint in (master, *master.others))
    for node in nodes:
        for status in node.statuses:
            others.update(status.role.servers or ())
            others.update(status.role.followers or ())
    return not others <= {config.node.name}


ALONE: Final = (
    "This node alone is seen: an [operator] certificate in its murder.toml lets it ask the others"
)


async def learn(reach: Reach) -> list[str]:
    """Find the nodes that nobody has named: the master, the servers of its list, who follows it, `[servers]`; each at its
    own name, or `[servers] address`, at the usual port. Returns `places`. Raises nothing of the master's."""
    config = reach.config
    if config.operator.nodes or reach.learned is not None or reach.credential.password is not None:
        return places(reach)
    own = control_folder(config).absolute().parent
    if config.operator.certificate is None and places(reach):
        return places(reach)  # a node's own file: other nodes tell its certificate nothing
    names = set(config.servers)
    masters: dict[str, None] = {}
    if "mupdate" in config.node.roles:
        masters[str(own)] = None
    if config.mupdate.master is not None:
        for endpoint in (config.mupdate.master, *config.mupdate.master.others):
            if not masters or endpoint.host != config.node.name:  # with own: those beside it
                masters[_at(endpoint.host)] = None
    for place in masters:
        with waiting(reach, (place,)):
            node = await _ask_one(reach, place, AskStatus())
        if node.problem and places(reach):
            return places(reach)  # nodes without `control`: this host's own tells of itself
        for status in node.statuses:
            names.update(status.role.servers or ())
            names.update(status.role.followers or ())
    names.discard(config.node.name)
    hosts = {_at(config.address_of(name)): name for name in sorted(names)}
    reach.learned = [place for place in {**masters, **hosts} if place != str(own)]
    reach.tls_names = {
        place: config.server(name).tls_name or name
        for place, name in hosts.items()
        if place not in masters
    }
    return places(reach)


def _at(host: str) -> str:
    return f"[{host}]:{DEFAULT_PORT}" if ":" in host else f"{host}:{DEFAULT_PORT}"


async def need_nodes(reach: Reach) -> None:
    """Raises Refusal where nobody can be asked."""
    if not await learn(reach):
        raise Refusal(
            Code.CANNOT,
            f"{reach.config.file}: no node is known: none has run on this host, and [mupdate] master is missing or "
            "there is no operator's certificate\n"
            'set [mupdate] master and [operator] certificate here, and control = ["*:3906"] in the [node] of each node; '
            'or name them: [operator] nodes = ["mupdate.example.org", …]',
        )


async def ask_all(reach: Reach, request: Request) -> list[NodeAnswers]:
    """Ask every node at once; those that do not answer say why."""
    places = await learn(reach)
    with waiting(reach, places, _limit_of(request)) as heard:

        async def asked(place: str) -> NodeAnswers:
            answers = await _ask_one(reach, place, request)
            heard(place)
            return answers

        return list(await asyncio.gather(*map(asked, places)))


@contextmanager
def waiting(
    reach: Reach, places: Iterable[str], most_s: float = TIMEOUT_S
) -> Iterator[Callable[[str], None]]:
    """Whoever looks is told who has not answered in a while; takes those that have."""
    missing = dict.fromkeys(places)

    def say() -> None:
        if missing and reach.notice is not None:
            reach.notice(
                f"no answer yet from {', '.join(missing)}: waiting for {most_s:g} s at most"
            )

    note = asyncio.get_running_loop().call_later(PATIENCE_S, say)
    try:
        yield lambda place: missing.pop(place, None)
    finally:
        note.cancel()


def _limit_of(request: Request) -> float:
    return PROBE_S if isinstance(request, AskProbe) else TIMEOUT_S


async def _ask_one(reach: Reach, place: str, request: Request) -> NodeAnswers:
    node, most_s = NodeAnswers(place), _limit_of(request)
    is_there = False
    asked = time.time()
    try:
        async with asyncio.timeout(most_s):
            async for answer in ask(reach, place, request):
                is_there = True
                if "now" in answer:
                    off_s = clock_off(float(answer["now"]), asked, time.time())
                    answer = {**answer, "clock_off_s": round(off_s, 3)}
                if "done" not in answer:
                    node.answers.append(answer)
    except TimeoutError:
        node.problem, node.cure = f"no answer in {most_s:g} s", _of_demo(place, "thaw") or HANGS
    except (OSError, ValueError) as problem:
        node.problem, node.cure = _problem_of(problem, place)
    if not is_there and not node.problem:
        if _is_local(place):
            node.problem, node.cure = "it does not run", _of_demo(place, "start") or START
        else:
            node.problem, node.cure = "it closed the connection", CERTIFICATE
    refused = [answer["no"] for answer in node.answers if "no" in answer]
    if refused:
        node.answers, node.problem, node.cure = [], str(refused[0]), CERTIFICATE
    if parse := PARSED.get(type(request)):
        try:
            for answer in node.answers:
                parse(answer)
        except BadSyntax as error:
            node.answers, node.problem = [], f"its answer is not understood: {error}"
            node.cure = "is it of this version?"
    return node


def _is_local(place: str) -> bool:
    return place.startswith(("/", "."))


def demo_of(place: str) -> str:
    """The folder of the demo that a node is of, as a shell takes it; empty for others'."""
    folder = Path(place).parent.parent
    if not _is_local(place) or not (folder / DEMO_SOCKET).exists():
        return ""
    return shlex.quote(str(folder))


def _of_demo(place: str, verb: str) -> str:
    """What starts or thaws a node of a demo; empty for others'."""
    label, where = Path(place).parent.name, demo_of(place)
    if not where:
        return ""
    return f"`murder demo node {verb} {label} --dir {where}`; where the demo is over: `murder demo --dir {where}`"


def clock_off(at: float, asked: float, heard: float) -> float:
    """By how much a clock is off at least that told this time between our asking and its answer: whoever else was asked
    and waited for has no part in it."""
    return at - max(asked, min(at, heard))


START: Final = "start it (`systemctl start murder`); its log says why it ended"
CLOSED: Final = f"{START}; just started, it needs some seconds. If it runs: set `control` in its [node], and open that port"
HANGS: Final = "has it just been started? else: its log, its load, its disk; or a firewall between"
CERTIFICATE: Final = (
    "`murder ca issue NAME --role operator` for [operator], at the authority of the nodes (tls.ca)"
)
NODE_TLS: Final = "its certificate must be of the authority in our tls.ca, in date, and carry that name: `murder ca issue`"
OTHER_USER: Final = "run this as root, or as the node's user: `sudo -u murder murder ctl …`"
DNS: Final = "put it into DNS or /etc/hosts"


def _problem_of(problem: Exception, place: str) -> tuple[str, str]:
    """What happened, and the mending step."""
    if isinstance(problem, PermissionError) and _is_local(place):
        return f"{place}: {why(problem)}", OTHER_USER
    if not isinstance(problem, OSError):
        return str(problem), "is that port a murder's `control`?"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return why(problem), NODE_TLS
    if isinstance(problem, ConnectionResetError):
        return why(problem), f"is it just starting, or ending? else {CERTIFICATE}"
    if isinstance(problem, ssl.SSLError):
        return why(problem), CERTIFICATE
    return why(problem), DNS if isinstance(problem, socket.gaierror) else CLOSED


async def ask(reach: Reach, place: str, request: Request) -> AsyncIterator[Answer]:
    """One node's answers as they come. Raises OSError, ValueError."""
    if _is_local(place):
        folder = Path(place)
        async for answer in ask_local(
            folder if folder.name == FOLDER else folder / FOLDER, request
        ):
            yield answer
        return
    host, port = _host_and_port(place)
    name = reach.tls_names.get(place, host)
    context = reach.tls_context()
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=name, limit=1 << 20
        )
    tls = writer.get_extra_info("ssl_object")
    if isinstance(tls, HalfOpenTls):  # nothing has come: the node speaks when it was asked
        tls.begin_reading()
    try:
        writer.write(format_request(request))
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        writer.close()


def _host_and_port(place: str) -> tuple[str, int]:
    """`host`, `host:port`, `[address]:port`."""
    host, separator, port = place.rpartition(":")
    if not separator or "]" in port:
        return place.strip("[]"), DEFAULT_PORT
    return host.strip("[]"), int(port)


async def follow(reach: Reach, request: Request, limit_s: float) -> AsyncIterator[Answer]:
    """The answers of all nodes to a request that has no end (a trace), as they come: until `limit_s` after the first
    (0: for ever), or until all nodes have hung up."""
    lines: asyncio.Queue[Answer] = asyncio.Queue(1000)

    async def one(place: str) -> None:
        try:
            async for answer in ask(reach, place, request):
                await lines.put(answer)
        except (OSError, ValueError) as problem:
            await lines.put({"node": place, "no": _problem_of(problem, place)[0]})

    loop = asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(one(place)) for place in await learn(reach)]
    end = None
    try:
        while not (all(task.done() for task in tasks) and lines.empty()):
            while not lines.empty():
                if limit_s and end is None:
                    end = loop.time() + limit_s
                yield lines.get_nowait()
            if end is not None and loop.time() >= end:
                return
            await asyncio.sleep(FOLLOW_EVERY_S)
    finally:
        for task in tasks:
            task.cancel()
