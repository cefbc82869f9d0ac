"""What the processes of a node answer an operator, over its control sockets, as values: one line of JSON each, in which
`node`, `role` and `worker` say who answers. What a newer node tells beyond this is passed over, and passed on with `--json`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from murder.wire.nodes.json_fields import Fields

Words = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Of a process, whatever its role. Sizes are octets but for `memory_kib`; `descriptors_most` is the limit; `replaced`:
    another program file lies where its own was; `processes`: how many its role has here (0: an older version)."""

    version: str = ""
    pid: int = 0
    now: float | None = None
    uptime_s: float = 0.0
    connections: int = 0
    cpu_s: float = 0.0
    memory_kib: int = 0
    descriptors: int = 0
    descriptors_most: int = 0
    disk_free: int = 0
    disk_size: int = 0
    certificate_until: float | None = None
    replaced: bool = False
    processes: int = 0


@dataclass(frozen=True, slots=True)
class ListFacts:
    """How a copy of the mailbox list stands against its master's; what is not known is None."""

    list: str
    synchronised: bool | None = None
    lag_entries: int | None = None
    lag_s: float | None = None
    list_problem: str = ""


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A server of the engine that several masters share, as one of them sees it. `problem` is empty where it is well."""

    name: str
    address: str
    is_leader: bool = False
    used_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What keeps a master's list together with other masters'. `problem`: why it takes no changes now; `members` as they
    were asked for this answer; `configured`: what its murder.toml says keeps it."""

    kind: str
    problem: str = ""
    members: tuple[MemberFacts, ...] = ()
    configured: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        members = [
            {field.name: getattr(member, field.name) for field in fields(member)}
            for member in self.members
        ]
        more = {"configured": self.configured} if self.configured else {}
        return {"kind": self.kind, "problem": self.problem, "members": members, **more}


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """Of a role; what it does not have is None. `copy`: its copy of the list, where it follows a master. `down`: backends
    that are not reached; `journal_bytes`: what its store's databases have written ahead; `store_messages`, `store_bytes`:
    what it holds, as it was counted last; `store_problem`: why it keeps no mail now, empty where it does;
    `store_disk_free`, `store_disk_size`: octets of the disk of its mail, where that is on one; `list_bytes`: what
    its mailbox list takes, `list_journal_bytes`: what of it stands in a journal only; `lacking`: mailboxes that the
    master names here and that are lost; `master`: `connected` or `away`, `master_problem`: why;
    `behind`: changes that the slowest subscriber has
    not taken; `mark`: where a master's history stands, as `epoch:number:commit`; `engine`: of one of several masters."""

    mailboxes: int | None = None
    sessions: int | None = None
    down: tuple[str, ...] | None = None
    moves: int | None = None
    moves_failed: int | None = None
    quarantined: int | None = None
    journal_bytes: int | None = None
    store_messages: int | None = None
    store_bytes: int | None = None
    store_problem: str | None = None
    store_disk_free: int | None = None
    store_disk_size: int | None = None
    list_bytes: int | None = None
    list_journal_bytes: int | None = None
    lacking: int | None = None
    master: str | None = None
    master_problem: str | None = None
    conflicts: int | None = None
    changes: int | None = None
    refused: int | None = None
    subscribers: int | None = None
    behind: int | None = None
    is_master: bool | None = None
    mark: str | None = None
    engine: EngineFacts | None = None
    servers: tuple[str, ...] | None = None
    followers: tuple[str, ...] | None = None
    copy: ListFacts | None = None

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        facts = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("copy", "engine")
        }
        copy = shown_of(self.copy) if self.copy is not None else {}
        if self.engine is not None:
            copy["engine"] = self.engine.shown()
        return copy | {key: value for key, value in facts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to AskStatus. `clock_off_s` is known only to who has asked: by how much its clock is off at least."""

    process: ProcessFacts
    role: RoleFacts
    clock_off_s: float = 0.0

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        facts = {key: value for key, value in shown_of(self.process).items() if value is not None}
        if not self.process.disk_size:  # not known: no figure is taken for a full disk
            del facts["disk_size"], facts["disk_free"]
        return facts | self.role.shown()


@dataclass(frozen=True, slots=True)
class Probed:
    """One thing that a node looked at. `problem` is empty where it is well; `kind` that of an UpstreamFailure, or
    `certificate`; `cure` where the node knows one itself."""

    what: str
    problem: str = ""
    kind: str = ""
    cure: str = ""
    took_ms: float | None = None

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        more = {"kind": self.kind, "cure": self.cure, "took_ms": self.took_ms}
        facts: dict[str, object] = {"what": self.what, "problem": self.problem}
        return facts | {key: value for key, value in more.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True)
class ConflictShown:
    """Who wanted what is another's: see `murder ctl conflicts --help` for `command`. `at` is Unix time; `kept_as` of what is
    in quarantine, `target` and `rename` of a RENAME in doubt."""

    name: str
    command: str
    claimant: str
    at: float = 0.0
    holder: str | None = None
    peer: str | None = None
    kept_as: str | None = None
    target: str | None = None
    rename: str | None = None

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        facts = {"name": self.name, "claimant": self.claimant, "command": self.command}
        more = {
            key: getattr(self, key) for key in ("holder", "peer", "kept_as", "target", "rename")
        }
        known = {key: text for key, text in more.items() if text is not None}
        return {**facts, "at": self.at, **known}


@dataclass(frozen=True, slots=True)
class SessionShown:
    """One connection, and the session on it. One that says no more of itself has no `protocol`. `proxy`: who acts for the
    user; `state` is None of a protocol that has none; `idle_s` of what does not tell. Of a frontend's, `backends` are those
    it is connected to, `backend` is that of the mailbox. `node` and `role` are known only to who has asked."""

    cid: str
    address: str = ""
    tls: bool = False
    protocol: str = ""
    user: str = ""
    proxy: str = ""
    state: str | None = None
    idle_s: float | None = None
    mailbox: str = ""
    backend: str = ""
    backends: tuple[str, ...] | None = None
    node: str = ""
    role: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        facts: dict[str, object] = {"cid": self.cid, "address": self.address, "tls": self.tls}
        if not self.protocol:
            return facts
        facts |= {"protocol": self.protocol, "user": self.user, "proxy": self.proxy}
        more = {
            "state": self.state,
            "idle_s": self.idle_s,
            "mailbox": self.mailbox or None,
            "backend": self.backend or None,
            "backends": None if self.backends is None else list(self.backends),
        }
        return facts | {key: value for key, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Kicked:
    """How many sessions were ended."""

    number: int

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kicked": self.number}


@dataclass(frozen=True, slots=True)
class CopyStage:
    """How far a list is on its way to another engine."""

    what: str
    done: int = 0
    of: int = 0

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"stage": self.what, "number": self.done, "of": self.of}


@dataclass(frozen=True, slots=True)
class ListCopied:
    """The list is kept by another engine now: rows that were compared, the number of its last change, and how long changes
    have waited."""

    engine: str
    rows: int
    seq: int
    waited_s: float

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {f"copied_{field.name}": getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class ChainChecked:
    """What one role of a node found of the lines it has kept: `breaks` are `FILE:LINE` of each that does not go on from the
    one before it. `node`: known only to who has asked."""

    files: int
    breaks: tuple[str, ...] = ()
    node: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"files": self.files, "breaks": list(self.breaks)}


@dataclass(frozen=True, slots=True)
class TrailLine:
    """A line that a node has kept: when, what, and its `facts`, which each event has others of; both stand among them, too.
    `chain` is its link, where there is one. `node` and `role` are known only to who has asked."""

    at: str
    event: str
    facts: Mapping[str, object]
    chain: str = ""
    node: str = ""
    role: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"line": dict(self.facts)}

    def text(self, key: str) -> str:
        """A fact; "" where there is none."""
        value = self.facts.get(key)
        return "" if value is None else str(value)

    def with_place(self) -> dict[str, object]:
        """Its facts, and who has kept it."""
        return {"node": self.node, "role": self.role, **self.facts}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a process's log. `node` and `role` are known only to who has asked."""

    at: float
    level: str
    text: str
    node: str = ""
    role: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"at": self.at, "level": self.level, "text": self.text}


@dataclass(frozen=True, slots=True)
class Traced:
    """What passed on a connection; `who` is C, S, or - for its end."""

    at: float
    cid: str
    who: str
    octets: str


@dataclass(frozen=True, slots=True)
class ReloadProblem:
    """Why a configuration is not taken: the file, the key in it, a sentence."""

    file: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a node has made of its murder.toml, read again: keys that have changed, those among them that wait for a restart;
    with `problems` nothing has changed."""

    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[ReloadProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnPorts:
    """What a node has bound: each a key of murder.toml, a blank, the endpoint."""

    pid: int
    ports: tuple[str, ...] = ()

    @property
    def endpoints(self) -> set[str]:
        """Without the keys."""
        return {port.partition(" ")[2] for port in self.ports}


def shown_of(
    value: ProcessFacts | ListFacts | Traced | Reloaded | OwnPorts,
) -> dict[str, object]:
    """Its fields, as JSON has them."""
    return asdict(value)


def parse_node_status(answer: Words) -> Status:
    """Raises BadSyntax, as all below; every field may be missing."""
    words = Fields(answer)
    process = ProcessFacts(
        version=words.text("version", ""),
        pid=words.integer("pid", 0),
        now=_number(words, "now"),
        uptime_s=words.number("uptime_s", 0.0),
        connections=words.integer("connections", 0),
        cpu_s=words.number("cpu_s", 0.0),
        memory_kib=words.integer("memory_kib", 0),
        descriptors=words.integer("descriptors", 0),
        descriptors_most=words.integer("descriptors_most", 0),
        disk_free=words.integer("disk_free", 0),
        disk_size=words.integer("disk_size", 0),
        certificate_until=_number(words, "certificate_until"),
        replaced=words.flag("replaced", False),
        processes=words.integer("processes", 0),
    )
    return Status(process, _parse_role(words), words.number("clock_off_s", 0.0))


def _parse_role(words: Fields) -> RoleFacts:
    return RoleFacts(
        mailboxes=_integer(words, "mailboxes"),
        sessions=_integer(words, "sessions"),
        down=_texts(words, "down"),
        moves=_integer(words, "moves"),
        moves_failed=_integer(words, "moves_failed"),
        quarantined=_integer(words, "quarantined"),
        journal_bytes=_integer(words, "journal_bytes"),
        store_messages=_integer(words, "store_messages"),
        store_bytes=_integer(words, "store_bytes"),
        store_problem=words.text("store_problem") if "store_problem" in words else None,
        store_disk_free=_integer(words, "store_disk_free"),
        store_disk_size=_integer(words, "store_disk_size"),
        list_bytes=_integer(words, "list_bytes"),
        list_journal_bytes=_integer(words, "list_journal_bytes"),
        lacking=_integer(words, "lacking"),
        master=words.text("master") if "master" in words else None,
        master_problem=words.text("master_problem") if "master_problem" in words else None,
        conflicts=_integer(words, "conflicts"),
        changes=_integer(words, "changes"),
        refused=_integer(words, "refused"),
        subscribers=_integer(words, "subscribers"),
        behind=_integer(words, "behind"),
        is_master=words.flag("is_master") if "is_master" in words else None,
        mark=words.text("mark") if "mark" in words else None,
        engine=_parse_engine(Fields(words.mapping("engine"))) if "engine" in words else None,
        servers=_texts(words, "servers"),
        followers=_texts(words, "followers"),
        copy=_parse_copy(words) if "list" in words else None,
    )


def _parse_engine(words: Fields) -> EngineFacts:
    members = tuple(
        MemberFacts(
            member.text("name", ""),
            member.text("address", ""),
            member.flag("is_leader", False),
            member.integer("used_bytes", 0),
            member.text("problem", ""),
        )
        for member in words.objects("members")
    )
    configured = words.text("configured", "")
    return EngineFacts(words.text("kind", ""), words.text("problem", ""), members, configured)


def _parse_copy(words: Fields) -> ListFacts:
    return ListFacts(
        words.text("list"),
        words.flag("synchronised") if words.word("synchronised") is not None else None,
        _integer(words, "lag_entries"),
        _number(words, "lag_s"),
        words.text("list_problem", ""),
    )


def _integer(words: Fields, key: str) -> int | None:
    return None if words.word(key) is None else words.integer(key)


def _number(words: Fields, key: str) -> float | None:
    return None if words.word(key) is None else words.number(key)


def _texts(words: Fields, key: str) -> tuple[str, ...] | None:
    return words.texts(key) if key in words else None


def parse_probed(answer: Words) -> Probed:
    """The answer to AskProbe."""
    words = Fields(answer)
    return Probed(
        words.text("what"),
        words.text("problem", ""),
        words.text("kind", ""),
        words.text("cure", ""),
        _number(words, "took_ms"),
    )


def parse_conflict(answer: Words) -> ConflictShown:
    """The answer to AskConflicts."""
    words = Fields(answer)
    return ConflictShown(
        words.text("name"),
        words.text("command", ""),
        words.text("claimant", ""),
        words.number("at", 0.0),
        *(
            words.text(key) if key in words else None
            for key in ("holder", "peer", "kept_as", "target", "rename")
        ),
    )


def parse_session(answer: Words) -> SessionShown:
    """The answer to AskSessions."""
    words = Fields(answer)
    return SessionShown(
        cid=words.text("cid", ""),
        address=words.text("address", ""),
        tls=words.flag("tls", False),
        protocol=words.text("protocol", ""),
        user=words.text("user", ""),
        proxy=words.text("proxy", ""),
        state=words.text("state") if "state" in words else None,
        idle_s=_number(words, "idle_s"),
        mailbox=words.text("mailbox", ""),
        backend=words.text("backend", ""),
        backends=_texts(words, "backends"),
        node=words.text("node", ""),
        role=words.text("role", ""),
    )


def parse_chain_checked(answer: Words) -> ChainChecked:
    """The answer to AskChain."""
    words = Fields(answer)
    return ChainChecked(
        words.integer("files", 0), words.texts("breaks", ()), words.text("node", "")
    )


def parse_trail_line(answer: Words) -> TrailLine:
    """The answer to AskTrail."""
    words = Fields(answer)
    facts = words.mapping("line")
    line = Fields(facts)
    texts = (line.text("chain", ""), words.text("node", ""), words.text("role", ""))
    return TrailLine(line.text("at", ""), line.text("event", ""), facts, *texts)


def parse_copying(answer: Words) -> CopyStage | ListCopied | None:
    """An answer to CopyList; None for one of a process that has no master."""
    words = Fields(answer)
    if "stage" in words:
        return CopyStage(words.text("stage"), words.integer("number", 0), words.integer("of", 0))
    if "copied_engine" in words:
        return ListCopied(
            words.text("copied_engine"),
            words.integer("copied_rows", 0),
            words.integer("copied_seq", 0),
            words.number("copied_waited_s", 0.0),
        )
    return None


def parse_log_line(answer: Words) -> LogLine:
    """The answer to AskLog."""
    words = Fields(answer)
    return LogLine(
        words.number("at", 0.0),
        words.text("level", ""),
        words.text("text", ""),
        words.text("node", ""),
        words.text("role", ""),
    )


def parse_reloaded(answer: Words) -> Reloaded:
    """The answer to Reload."""
    words = Fields(answer)
    problems = [
        ReloadProblem(row.text("file", ""), row.text("key", ""), row.text("problem", ""))
        for row in words.objects("problems")
    ]
    return Reloaded(words.texts("changed"), words.texts("waiting"), tuple(problems))


def parse_own_ports(answer: Words) -> OwnPorts:
    """The answer to AskPorts."""
    words = Fields(answer)
    return OwnPorts(words.integer("pid", 0), words.texts("ports", ()))


def parse_traced(answer: Words) -> Traced | None:
    """A line of a trace; None for its beginning."""
    words = Fields(answer)
    if "octets" not in words:
        return None
    return Traced(words.number("at"), words.text("cid"), words.text("who"), words.text("octets"))
