"""What an operator's command asks a node, over its control sockets, as values: one line of JSON with the request's word in
`do`. And what a frontend answers to where a new mailbox would go.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from murder.errors import BadSyntax
from murder.model.name import MailboxName
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.control_answers import SessionShown
from murder.wire.nodes.json_fields import Fields, parse_fields

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MAX_WORDS: Final = 200  # looked for at once


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions are meant: those that all of the given fit; "" is not given."""

    user: str = ""
    backend: str = ""
    address: str = ""
    cid: str = ""

    def given(self) -> dict[str, str]:
        filters = {
            "user": self.user,
            "backend": self.backend,
            "address": self.address,
            "cid": self.cid,
        }
        return {key: value for key, value in filters.items() if value}

    def fits(self, session: SessionShown) -> bool:
        """Whether this one is meant, by what it says of itself."""
        return all(getattr(session, key) == value for key, value in self.given().items())


@dataclass(frozen=True, slots=True)
class AskStatus:
    word: ClassVar[str] = "status"


@dataclass(frozen=True, slots=True)
class AskFigures:
    """What `status` tells of each process, and beside it how often things have happened there, and how long they took."""

    word: ClassVar[str] = "figures"


@dataclass(frozen=True, slots=True)
class AskSessions:
    word: ClassVar[str] = "sessions"
    wanted: Wanted = Wanted()


@dataclass(frozen=True, slots=True)
class Kick:
    """End sessions; of one role only, or of all others, where that is named."""

    word: ClassVar[str] = "kick"
    wanted: Wanted = Wanted()
    only: str = ""
    but: str = ""

    def is_for(self, role: str) -> bool:
        """Whether it ends sessions of this role."""
        return self.only in ("", role) and self.but != role


@dataclass(frozen=True, slots=True)
class AskConflicts:
    word: ClassVar[str] = "conflicts"
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may take a new mailbox; `weight` 0: it takes none."""

    server: str
    mailboxes: int
    weight: float


@dataclass(frozen=True, slots=True)
class AskPlace:
    """Where a new mailbox would go by these weights of the backends; or, where there are candidates (also none of them),
    what the policy alone says of those."""

    word: ClassVar[str] = "place"
    name: MailboxName
    weights: Mapping[str, float]
    candidates: tuple[Candidate, ...] | None = None


@dataclass(frozen=True, slots=True)
class AskProbe:
    """Look at what this node needs of others."""

    word: ClassVar[str] = "probe"


@dataclass(frozen=True, slots=True)
class AskTrace:
    """What passes between a user's clients and this node, until the operator hangs up."""

    word: ClassVar[str] = "trace"
    user: str


@dataclass(frozen=True, slots=True)
class AskTrail:
    """What a node has kept of its own (`mail`: the mail log): lines in which one of the words stands, not older than so many
    seconds; the newest where there are too many."""

    word: ClassVar[str] = "trail"
    kind: str
    words: tuple[str, ...]
    within_s: float = 0.0  # 0: however old


@dataclass(frozen=True, slots=True)
class AskChain:
    """Whether lines of this kind were taken out or altered since they were written."""

    word: ClassVar[str] = "chain"
    kind: str


@dataclass(frozen=True, slots=True)
class AskLog:
    """The last lines of a process's log in which the word stands, from that level on."""

    word: ClassVar[str] = "log"
    text: str = ""
    least: str = "info"


@dataclass(frozen=True, slots=True)
class CopyList:
    """To a master: bring the mailbox list to that engine, and go on there."""

    word: ClassVar[str] = "copy_list"
    to: str


@dataclass(frozen=True, slots=True)
class AskPorts:
    """Of the node as a whole: what it has bound."""

    word: ClassVar[str] = "ports"


@dataclass(frozen=True, slots=True)
class Reload:
    """To the node as a whole: read the configuration again."""

    word: ClassVar[str] = "reload"


Request = (
    AskStatus
    | AskFigures
    | AskSessions
    | Kick
    | AskConflicts
    | AskPlace
    | AskProbe
    | AskTrace
    | AskTrail
    | AskChain
    | AskLog
    | CopyList
    | AskPorts
    | Reload
)


def parse_control_request(line: bytes) -> Request:
    """Raises BadSyntax, which says which field is wrong and how, or that the word is no request."""
    fields = parse_fields(line)
    word = fields.word("do")
    match word:
        case "status":
            return AskStatus()
        case "figures":
            return AskFigures()
        case "sessions":
            return AskSessions(_wanted(fields))
        case "kick":
            return Kick(_wanted(fields), fields.text("only", ""), fields.text("but", ""))
        case "conflicts":
            return AskConflicts(fields.flag("forget", False))
        case "place":
            return _place(fields)
        case "probe":
            return AskProbe()
        case "trace":
            if not (user := fields.text("user", "")):
                raise BadSyntax("a trace needs a user")
            return AskTrace(user)
        case "trail":
            words = fields.texts("words")
            if len(words) > MAX_WORDS:
                raise BadSyntax(f"{len(words)} words; {MAX_WORDS} may be looked for at once")
            return AskTrail(fields.text("kind"), words, fields.number("within_s", 0.0))
        case "chain":
            return AskChain(fields.text("kind"))
        case "log":
            least = fields.text("least", "info")
            if least not in LOG_LEVELS:
                raise BadSyntax(f"{least!r} is none of {', '.join(LOG_LEVELS)}")
            return AskLog(fields.text("text", ""), least)
        case "copy_list":
            return CopyList(fields.text("to"))
        case "ports":
            return AskPorts()
        case "reload":
            return Reload()
    raise unknown_request(word)


_UNKNOWN: Final = "is no request"  # as every version says it


def unknown_request(word: object) -> BadSyntax:
    """What is asked is not answered here."""
    return BadSyntax(f"{word!r} {_UNKNOWN}")


def is_too_old(problem: str) -> bool:
    """Whether a node could not be asked because its version does not know the request."""
    return _UNKNOWN in problem


def _wanted(fields: Fields) -> Wanted:
    return Wanted(*(fields.text(key, "") for key in ("user", "backend", "address", "cid")))


def _place(fields: Fields) -> AskPlace:
    candidates = _candidates(fields) if "candidates" in fields else None
    return AskPlace(fields.name("name"), fields.numbers("weights", {}), candidates)


def _candidates(fields: Fields) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(row.text("0"), row.integer("1"), row.number("2"))
        for row in fields.rows("candidates", 3)
    )


@dataclass(frozen=True)
class Asker:
    """An operator on whose behalf a node passes a request on, and their address; empty: somebody on this host."""

    user: str = ""
    peer: str = ""


NOBODY: Final = Asker()


def parse_asker(line: bytes) -> Asker:
    """On whose behalf a request comes, as a node says of an operator who has asked it. Raises BadSyntax."""
    fields = parse_fields(line)
    return Asker(fields.text("by", ""), fields.text("from", ""))


def format_request(request: Request, by: Asker = NOBODY) -> bytes:
    """As a line; `by` is on whose behalf a node passes it on."""
    fields: dict[str, object] = {"do": request.word}
    fields |= {key: text for key, text in (("by", by.user), ("from", by.peer)) if text}
    match request:
        case AskSessions(wanted):
            fields.update(wanted.given())
        case Kick(wanted, only, but):
            roles = {key: role for key, role in (("only", only), ("but", but)) if role}
            fields.update(roles, **wanted.given())
        case AskConflicts(forget):
            fields.update({"forget": True} if forget else {})
        case AskPlace(name, weights, candidates):
            fields["name"] = format_name(name)
            if candidates is None:
                fields["weights"] = dict(weights)
            else:
                fields["candidates"] = _shown(candidates)
        case AskTrace(user):
            fields["user"] = user
        case AskChain(kind):
            fields["kind"] = kind
        case AskLog(text, least):
            fields.update(text=text, least=least)
        case CopyList(to):
            fields["to"] = to
        case AskTrail(kind, words, within_s):
            fields.update(kind=kind, words=list(words), within_s=within_s)
        case _:
            pass
    return json.dumps(fields).encode() + b"\n"


def _shown(candidates: tuple[Candidate, ...]) -> list[list[object]]:
    return [[candidate.server, candidate.mailboxes, candidate.weight] for candidate in candidates]


# --- the answer to AskPlace


@dataclass(frozen=True, slots=True)
class Placement:
    """`server`: None where the policy names none. Of a policy asked alone, `reason` and `candidates` are empty. `node`: the
    frontend that says so, known only to who has asked it. `quota`: what a new user may have."""

    server: str | None
    reason: str = ""
    candidates: tuple[Candidate, ...] = ()
    node: str = ""
    quota: str = ""

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        if not self.reason:
            return {"server": self.server}
        candidates = _shown(self.candidates)
        more = {"quota": self.quota} if self.quota else {}
        return {"server": self.server, "reason": self.reason, "candidates": candidates, **more}


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """The mailbox can be made nowhere, and why."""

    problem: str

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        return {"refused": self.problem}


def parse_placement(answer: Mapping[str, object]) -> Placement | NotPlaced | None:
    """None for what answers something else. Raises BadSyntax."""
    fields = Fields(answer)
    if "refused" in fields:
        return NotPlaced(fields.text("refused"))
    if "server" not in fields:
        return None
    server = None if answer["server"] is None else fields.text("server")
    candidates = _candidates(fields) if "candidates" in fields else ()
    words = (
        fields.text("reason", ""),
        candidates,
        fields.text("node", ""),
        fields.text("quota", ""),
    )
    return Placement(server, *words)
