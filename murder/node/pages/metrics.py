"""Figures of a node for a monitoring system, in OpenMetrics; whether it lives, and is ready.

At each question all processes of the node are asked over their control sockets, so that what is told is exact, and nothing
is counted in shared memory; who asks while they are asked shares the next question. Each series carries role and worker.

Names are those of OpenTelemetry's semantic conventions where there are some (`process.cpu.time`, as Prometheus writes that).
`system.*` is for figures of a whole host alone, so what `node.data` has left is murder's own; commands of mail protocols,
commits of a store and loops of asyncio have no convention.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import (
    ALLOWUTF8,
    CONTENT_TYPE_LATEST,
    generate_latest,
)
from prometheus_client.registry import Collector, CollectorRegistry

from murder.model.protocol import WEB
from murder.node.control.sockets import ask_local
from murder.node.pages.http import Request, Response
from murder.trail.figures import ALSO_COUNTED, CLASSES_S, NAMES
from murder.wire.nodes.control_words import AskFigures, AskStatus

ANSWER_S: Final = 5.0
WHO: Final = ("role", "worker")
Answer = Mapping[str, Any]
T = TypeVar("T")

# What `status` tells: its key, the metric, its unit, what it means
GAUGES: Final = (
    ("connections", "murder_connections", "", "Connections that are open."),
    ("sessions", "murder_sessions", "", "Sessions of clients that are open."),
    ("mailboxes", "murder_list_mailboxes", "", "Mailboxes in the list as this process sees it."),
    ("uptime_s", "process_uptime_seconds", "seconds", "Since the role was started."),
    ("descriptors", "process_unix_file_descriptor_count", "", "Descriptors that it has open."),
    ("descriptors_most", "murder_max_fds", "", "Descriptors that it may open."),
    ("disk_free", "murder_disk_free_bytes", "bytes", "Left on the disk of node.data."),
    ("disk_size", "murder_disk_size_bytes", "bytes", "Of the disk of node.data."),
    ("list_bytes", "murder_list_bytes", "bytes", "Of the list's file, by rows and indexes."),
    (
        "list_journal_bytes",
        "murder_list_journal_bytes",
        "bytes",
        "What of the list is written ahead, and not in its file yet.",
    ),
    ("lag_s", "murder_list_lag_seconds", "seconds", "How far the list is behind the master."),
    ("conflicts", "murder_list_conflicts", "", "Mailboxes that two servers want."),
    ("quarantined", "murder_quarantined_mailboxes", "", "Mailboxes that another server has, too."),
    (
        "journal_bytes",
        "murder_store_journal_bytes",
        "bytes",
        "What the store's open databases have written ahead (WAL).",
    ),
    ("store_messages", "murder_store_messages", "", "Messages that the store holds, counted last."),
    ("store_bytes", "murder_store_bytes", "bytes", "Octets of them, counted last."),
    ("store_disk_free", "murder_store_disk_free_bytes", "bytes", "Left on the disk of the mail."),
    ("store_disk_size", "murder_store_disk_size_bytes", "bytes", "Of the disk of the mail."),
    (
        "lacking",
        "murder_lost_mailboxes",
        "",
        "Mailboxes that the master names here and that are lost.",
    ),
    ("subscribers", "murder_list_subscribers", "", "Who follows the list."),
    ("behind", "murder_list_backlog", "", "Changes that the slowest of them has not been sent."),
    ("moves", "murder_moves_open", "", "Moves of mailboxes that are under way."),
    ("moves_failed", "murder_moves_failed", "", "Moves that have failed and wait for somebody."),
)
COUNTERS: Final = (
    ("changes", "murder_list_changes", "", "Changes of the list that were committed."),
    ("refused", "murder_list_refusals", "", "Changes of the list that were refused."),
    ("cpu_s", "process_cpu_time_seconds", "seconds", "Time of processors that it has used."),
)
MEMORY: Final = "process_memory_usage_bytes"
# As earlier versions call the same: told beside the new names in this version, for rules and dashboards of before
FORMER: Final[Mapping[str, str]] = {
    "process_uptime_seconds": "murder_uptime_seconds",
    "process_unix_file_descriptor_count": "murder_open_fds",
    "process_cpu_time_seconds": "murder_cpu_seconds",
    MEMORY: "murder_memory_bytes",
}


def pages(folder: Path) -> "Pages":
    """Of the node whose control sockets are in this folder."""
    return Pages(folder)


class Together(Generic[T]):
    """A question that is asked once at a time, for all who came before it was begun: so many more may ask at once as like,
    and it costs no more."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """Of a question that begins now, or when the one before is answered. Raises what that raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run())
        return await asyncio.shield(self._next)

    async def _run(self) -> T:
        async with self._turn:
            self._next = None
            return await self._ask()


class Pages:
    """`/metrics`, `/healthz`, `/readyz`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metrics = Together(self._told)
        self._readiness = Together(self._ready)

    async def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"GET it\n", headers={"Allow": "GET, HEAD"})
        match request.path.partition("?")[0]:
            case "/metrics":
                return await self._metrics.answer()
            case "/healthz":  # that this was answered says it
                return Response(200, b"It lives\n")
            case "/readyz":
                return await self._readiness.answer()
        return Response(404, b"/metrics, /healthz and /readyz are here\n")

    async def _ask(self, request: AskStatus | AskFigures) -> list[Answer]:
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                async for answer in ask_local(self._folder, request):
                    if "done" not in answer and "no" not in answer:
                        answers.append(answer)
        except TimeoutError:
            pass  # a process hangs: the others' figures are told
        return answers

    async def _told(self) -> Response:
        answers = await self._ask(AskFigures())
        text = await asyncio.to_thread(exposed, answers, time.time())
        return Response(200, text, CONTENT_TYPE_LATEST)

    async def _ready(self) -> Response:
        """Whether clients should be sent here: every role has answered, no list was never complete, and mail can
        be kept."""
        answers = [status for status in await self._ask(AskStatus()) if status["role"] != WEB.name]
        waiting = sorted(
            {
                f"{answer['role']}: its mailbox list has never been complete"
                for answer in answers
                if answer.get("synchronised") is False
            }
        )
        waiting += sorted(
            {
                f"{answer['role']}: {answer['store_problem']}"
                for answer in answers
                if answer.get("store_problem")
            }
        )
        if not answers:
            waiting = ["no role answers"]
        text = "\n".join(waiting or ["ready"])
        return Response(503 if waiting else 200, f"{text}\n".encode())


class _Told(Collector):
    """Families as they are."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def exposed(answers: Sequence[Answer], now: float) -> bytes:
    """The page, of what each process has answered."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told([*_of_status(answers, now), *_of_figures(answers)]))
    # All names here are plain. To make them so the library would look at each of their letters again for every series, which
    # costs half as much as all the rest
    text: bytes = generate_latest(registry, ALLOWUTF8)  # type: ignore[no-untyped-call]  # the library tells none
    return text


def _who(answer: Answer) -> list[str]:
    return [str(answer["role"]), str(answer["worker"])]


def _of_status(answers: Sequence[Answer], now: float) -> Iterator[Metric]:
    for key, name, unit, meaning in GAUGES:
        for called in _names(name):
            gauge = GaugeMetricFamily(called, meaning, labels=WHO, unit=unit)
            yield _filled(gauge, answers, key)
    for key, name, unit, meaning in COUNTERS:
        for called in _names(name):
            counter = CounterMetricFamily(called, meaning, labels=WHO, unit=unit)
            yield _filled(counter, answers, key)
    memories = [
        GaugeMetricFamily(called, "The process's own share of memory.", labels=WHO, unit="bytes")
        for called in _names(MEMORY)
    ]
    until = GaugeMetricFamily(
        "murder_certificate_left_seconds",
        "Until the first of the node's certificates ends.",
        labels=WHO,
        unit="seconds",
    )
    synchronised = GaugeMetricFamily(
        "murder_list_synchronised", "1: the mailbox list has been complete once.", labels=WHO
    )
    usable = GaugeMetricFamily("murder_store_usable", "1: mail can be kept now.", labels=WHO)
    down = GaugeMetricFamily(
        "murder_backend_down",
        "1: this process cannot reach that backend.",
        labels=[*WHO, "backend"],
    )
    versions = GaugeMetricFamily(
        "murder_build", "1: a process of this version runs.", labels=[*WHO, "version"]
    )
    for status in answers:
        if "memory_kib" in status:
            for memory in memories:
                memory.add_metric(_who(status), int(status["memory_kib"]) * 1024)
        if "version" in status:
            versions.add_metric([*_who(status), str(status["version"])], 1)
        if "certificate_until" in status:
            until.add_metric(_who(status), float(status["certificate_until"]) - now)
        if "synchronised" in status:
            synchronised.add_metric(_who(status), int(bool(status["synchronised"])))
        if "store_problem" in status:
            usable.add_metric(_who(status), int(not status["store_problem"]))
        for backend in status.get("down", ()):
            down.add_metric([*_who(status), str(backend)], 1)
    yield from (*memories, until, synchronised, usable, down, versions)


def _names(name: str) -> tuple[str, ...]:
    """As it is called now, and was."""
    return (name, FORMER[name]) if name in FORMER else (name,)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, answers: Sequence[Answer], key: str
) -> Metric:
    for answer in answers:
        value = answer.get(key)
        if isinstance(value, int | float):
            family.add_metric(_who(answer), value)
    return family


def _of_figures(answers: Sequence[Answer]) -> Iterator[Metric]:
    for name, (labels, meaning) in NAMES.items():
        all_labels = [*WHO, *labels]
        counter = CounterMetricFamily(f"murder_{name}", meaning, labels=all_labels)
        durations = HistogramMetricFamily(
            f"murder_{name}_duration_seconds", meaning, labels=all_labels, unit="seconds"
        )
        for answer in answers:
            for label, values, number in answer.get("numbers", ()):
                if label == name:
                    counter.add_metric([*_who(answer), *values], number)
            for label, values, classes, sum_s in answer.get("times", ()):
                if label == name:
                    if name in ALSO_COUNTED:
                        counter.add_metric([*_who(answer), *values], sum(classes))
                    durations.add_metric([*_who(answer), *values], _buckets(classes), sum_s)
        if counter.samples:
            yield counter
        if durations.samples:
            yield durations


def _buckets(classes: Sequence[int]) -> list[tuple[str, float]]:
    """Those up to each end, as OpenMetrics has them."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for end, number in zip((*map(str, CLASSES_S), "+Inf"), classes, strict=True):
        total += number
        buckets.append((end, total))
    return buckets
