"""Scripts run over a message: instruction by instruction, in slices, until a question or the end.

`advance` runs until so many steps are spent, a question has no answer yet, or all is done. Nothing is waited for and
nothing is done to the world: actions are gathered. After a run-time error the message is kept, and nothing else done.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import GeneratorType
from typing import Any, Final

from murder.errors import Misuse
from murder.sieve.actions import (
    Action,
    Discard,
    FileInto,
    Keep,
    Notify,
    Pipe,
    Place,
    Redirect,
    Reject,
    Reply,
)
from murder.sieve.cache import ScriptCache
from murder.sieve.check.program import DO, GO, IF, STOP, Script
from murder.sieve.check.spec import Call, Suspended
from murder.sieve.check.templates import Matched, Reference, Template, Text
from murder.sieve.limits import Limits, Policy
from murder.sieve.problem import Problem, RunProblem
from murder.sieve.questions import Answer, LongWork, Question, RunProgram
from murder.sieve.run.circumstances import Circumstances, Envelope, Failure, Outcome, Step
from murder.sieve.run.message import (
    FIELDS_AT_ONCE,
    LOOK_OCTETS,
    MAX_FIELDS,
    Message,
    Octets,
)
from murder.sieve.run.words import canonical_flags

VERSIONED: Final = (Keep, FileInto, Redirect, Pipe)
INSTRUCTION_STEPS: Final = 8  # a test of a header takes so many microseconds
OCTETS_A_STEP: Final = 64  # that are looked at
LITERALS_A_STEP: Final = 8  # texts without variables
QUESTION_STEPS: Final = 20  # it is made, asked, and its answer kept
LARGE_HEADER: Final = 256 * 1024  # octets: a field of it may take more than a turn
MAX_ANSWERS: Final = 1000  # that are kept
MAX_NOTES: Final = 100


class Paused(Enum):
    """The slice is spent; go on when others had a turn."""

    PAUSED = 0


PAUSED: Final = Paused.PAUSED


@dataclass(slots=True)
class Frame:
    """A script that runs: the main one, or one that is included."""

    script: Script
    include: str = ""
    is_global: bool = False
    at: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)  # names that are global here (RFC 6609 §3.4)
    matched: list[str] = field(default_factory=list)  # ${0}, ${1}, ...
    enabled: set[str] = field(default_factory=set)  # extensions, by its `ihave`s so far


class Machine:
    """One run. Words of the language work on it; who runs it uses `advance`, `answer` only."""

    def __init__(
        self,
        scripts: Sequence[Script],
        octets: Octets,
        envelope: Envelope,
        circumstances: Circumstances,
        *,
        limits: Limits,
        policy: Policy,
        cache: ScriptCache,
        is_traced: bool = False,
    ) -> None:
        self.envelope = envelope
        self.circumstances = circumstances
        self.limits = limits
        self.policy = policy
        self.cache = cache
        self.message = Message(octets)
        self.original = self.message
        self.versions: list[Message] = [self.message]
        self.actions: list[Action] = []
        self.implicit_keep = True
        # the internal variable of imap4flags, as it is set
        self.flags: tuple[str, ...] | None = None
        self.shared: dict[str, str] = {}  # global variables
        self.included: set[tuple[str, bool]] = set()
        self.notes: list[str] = []
        self.state: dict[str, Any] = {}  # what an extension keeps through a run, by its name
        self.spent = 0
        self.result_octets = 0
        self._scripts = scripts
        self._script = 0
        self.frames: list[Frame] = [Frame(scripts[0])] if scripts else []
        self._answers: dict[Question, Answer] = {}
        self._work: Generator[Question | None, Answer, Any] | None = self._read()
        self._then: tuple[int, int] = (DO, -1)  # what the work's result is for
        self._send: Answer = None
        self._asked: Question | None = None
        self._trace: list[Step] | None = [] if is_traced else None
        self._call: Call | None = None
        self._caller: Frame | None = None
        self._outcome: Outcome | None = None

    # For who runs it

    def advance(self, steps: int = 2000) -> Question | Paused | Outcome:
        """Go on. A question is to be answered before the next call."""
        if self._outcome is not None:
            return self._outcome
        if self._asked is not None:
            raise Misuse("the run waits for an answer")
        try:
            return self._slice(min(self.spent + steps, self.limits.steps + 1))
        except RunProblem as problem:
            return self._fail(problem)

    def answer(self, answer: Answer) -> None:
        """The answer to the question that `advance` gave."""
        if self._asked is None:
            raise Misuse("nothing was asked")
        is_kept = not isinstance(self._asked, LongWork | RunProgram)
        if is_kept and len(self._answers) < MAX_ANSWERS:
            self._answers[self._asked] = answer
        self._asked = None
        self._send = answer

    def fail(self, text: str) -> Outcome:
        """The question cannot be answered, and the script is to end for it, as by a run-time error."""
        self._asked = None
        return self._fail(RunProblem(text))

    def _slice(self, until: int) -> Question | Paused | Outcome:
        while True:
            if self._work is not None:
                asked = self._go_on(self._work, until)
                if asked is not None:
                    return asked
            if not self.frames:
                if not self._next_script():
                    return self._end()
                continue
            if self._work is None and not self._instructions(until):
                continue
            if self.spent >= until:
                return PAUSED

    def _instructions(self, until: int) -> bool:
        """Run instructions; True when the slice is spent."""
        frame = self.frames[-1]
        program = frame.script.instructions
        at = frame.at
        while self.spent < until:
            kind, call, target = program[at]
            self.spent += INSTRUCTION_STEPS
            at += 1
            if call is None or kind > IF:
                frame.at = at
                if kind == GO:
                    at = target
                    continue
                self._leave(kind)
                return False
            self._call = call
            frame.at = at
            assert call.run is not None
            result: Any = call.run(self, call)
            if type(result) is GeneratorType:
                self._work, self._then, self._send = result, (kind, target), None
                self._caller = frame
                return False
            if self._trace is not None:
                self._record(call, result, frame)
            if kind != DO and (kind == IF) is bool(result):
                at = frame.at = target
            elif self.frames[-1] is not frame or frame.at != at:
                return False  # a word went elsewhere
        frame.at = at
        if self.spent > self.limits.steps:
            self.charge(0)
        return True

    def _go_on(self, work: Suspended, until: int) -> Question | Paused | None:
        """Drive a word that takes more than one step. None when it has ended."""
        while True:
            if isinstance(self._send, RunProblem):  # of a LongWork
                raise self._send
            try:
                item = work.send(self._send)
            except StopIteration as end:
                self._work = None
                self._done(end.value)
                return None
            self._send = None
            self.charge(1)
            if item is None:
                if self.spent >= until:
                    return PAUSED
                continue
            if item in self._answers:
                self._send = self._answers[item]
                if self.spent >= until:
                    return PAUSED
                continue
            self.charge(QUESTION_STEPS)
            self._asked = item
            return item

    def _done(self, result: Any) -> None:
        kind, target = self._then
        if self._trace is not None and self._call is not None and self._caller is not None:
            self._record(self._call, result, self._caller)
        if kind != DO and (kind == IF) is bool(result):
            self.frames[-1].at = target

    def _record(self, call: Call, result: Any, frame: Frame) -> None:
        """`frame`: where the word stands; it may have begun another."""
        if self._trace is None or len(self._trace) >= self.limits.trace_lines:
            return
        outcome = "done"
        if call.word.is_test:
            outcome = "true" if result else "false"
        self._trace.append(Step(self._script, frame.include, call.line, call.word.name, outcome))

    def _leave(self, kind: int) -> None:
        if kind == STOP:
            self.frames.clear()
        else:
            self.frames.pop()

    # From script to script

    def _next_script(self) -> bool:
        """The next of several scripts runs if the message would be kept (as Pigeonhole and Cyrus): it decides then what
        becomes of it."""
        kept = [action for action in self.actions if isinstance(action, Keep)]
        if self._script + 1 >= len(self._scripts) or not (self.implicit_keep or kept):
            return False
        if any(isinstance(action, Reject) for action in self.actions):
            return False
        if kept:
            self.actions.remove(kept[0])
            if kept[0].flags is not None:
                self.flags = kept[0].flags
        self.implicit_keep = True
        self.state.clear()
        self._script += 1
        self.frames.append(Frame(self._scripts[self._script]))
        return True

    def _end(self) -> Outcome:
        actions = list(self.actions)
        if self.implicit_keep:
            flags = None if self.flags is None else canonical_flags(self.flags)
            actions.append(Keep(flags, self.version(), implicit=True, place=self._place(0)))
        if not actions:
            actions.append(Discard())
        if len(actions) > 1:
            actions = [action for action in actions if not isinstance(action, Discard)]
        return self._finish(actions, None)

    def _fail(self, problem: RunProblem) -> Outcome:
        line, column = self.line, self._call.column if self._call is not None else 1
        include = self.frames[-1].include if self.frames else ""
        failure = Failure(self._script, include, Problem(line, column, problem.text))
        keep = Keep(None, 0, implicit=True, place=self._place(line))
        self.versions = [self.original]
        return self._finish([keep], failure)

    def _finish(self, actions: list[Action], failure: Failure | None) -> Outcome:
        """Only versions that an action has are made."""
        numbers = {0}
        numbers.update(action.version for action in actions if isinstance(action, VERSIONED))
        places = {number: place for place, number in enumerate(sorted(numbers))}
        actions = [
            replace(action, version=places[action.version])
            if isinstance(action, VERSIONED) and places[action.version] != action.version
            else action
            for action in actions
        ]
        self._outcome = Outcome(
            tuple(actions),
            tuple(self.versions[number] for number in sorted(numbers)),
            self.original,
            failure,
            self.spent,
            tuple(self._trace or ()),
            tuple(self.notes),
        )
        self.frames.clear()
        return self._outcome

    # For words

    def _read(self) -> Suspended:
        """The message's header, before anything else."""
        yield from self.reading(self.message)

    def reading(self, message: Message) -> Suspended:
        """Read the header of a message, which may be large, or all of it."""
        for _ in message.look():
            self.looked_at(LOOK_OCTETS)
            yield None
        if message.header_size > LARGE_HEADER:
            self.looked_at(message.header_size)
            yield LongWork(lambda: deque(message.read(), 0))
        for _ in message.read():
            self.charge(FIELDS_AT_ONCE)
            yield None
        if message.is_cut:
            self.note(f"the message has more than {MAX_FIELDS} header fields")

    def note(self, text: str) -> None:
        """Say something of what is run; much of it is not kept."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    def charge(self, steps: int) -> None:
        """So much work is done. Raises RunProblem when it is more than a run may do."""
        self.spent += steps
        if self.spent > self.limits.steps:
            raise RunProblem("execution exceeded its time: the script takes too many steps")

    def looked_at(self, octets: int) -> None:
        """Charge for octets that were searched. Raises where the script has used up its steps."""
        self.charge(octets // OCTETS_A_STEP)

    @property
    def line(self) -> int:
        """Of what is run."""
        return self._call.line if self._call is not None else 1

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def _place(self, line: int) -> Place:
        include = self.frames[-1].include if self.frames else ""
        return Place(self._script, line, include)

    def place(self, call: Call) -> Place:
        """Of a command, with the script that it is in."""
        return self._place(call.line)

    def check_enabled(self, needs: frozenset[str]) -> None:
        """Raises RunProblem where these have not all been asked for (RFC 5463 §4)."""
        if not needs <= self.frame.enabled:
            (name, *_) = sorted(needs - self.frame.enabled)
            raise RunProblem(f"'{name}' is used, and no ihave test has brought it before")

    def go(self, to: int) -> None:
        """Go on at another instruction of this script."""
        self.frames[-1].at = to

    def version(self) -> int:
        """The number of the message as it is now."""
        return len(self.versions) - 1

    def check_editable(self) -> None:
        """Raises RunProblem for a header that is too large to be written again; what it costs is charged."""
        if not self.message.is_known:
            raise RunProblem("the message's header is too large to be edited")
        self.charge(len(self.message.fields) // 2)

    def edit(self, message: Message) -> None:
        """From here on the message is another; versions that no action has are forgotten. Raises RunProblem."""
        last = self.version()
        is_used = last == 0 or any(
            action.version == last for action in self.actions if isinstance(action, VERSIONED)
        )
        if is_used and len(self.versions) > self.limits.message_versions:
            raise RunProblem("the message is edited too often")
        if is_used:
            self.versions.append(message)
        else:
            self.versions[last] = message
        if self.message is not self.original:
            self.message.let_go()
        self.message = message

    def add(self, action: Action, *, cancels_keep: bool = True) -> None:
        """One more thing to be done, unless it is already. Raises RunProblem for what cannot be done beside the others, or
        is one too many."""
        if cancels_keep:
            self.implicit_keep = False
        for number, other in enumerate(self.actions):
            if type(other) is type(action) and other.key == action.key:
                self.actions[number] = _merged(other, action)
                return
        self._check_conflicts(action)
        if len(self.actions) >= self.limits.actions:
            raise RunProblem("total number of actions exceeds policy limit")
        self._check_count(action, Redirect, self.limits.redirects)
        self._check_count(action, Notify, self.limits.notifications)
        self.actions.append(action)

    def _check_count(self, action: Action, kind: type[Action], most: int) -> None:
        if not isinstance(action, kind):
            return
        name = kind.__name__.lower()
        if not most:
            raise RunProblem(f"local policy prohibits the use of a {name} action")
        if sum(isinstance(other, kind) for other in self.actions) >= most:
            raise RunProblem(f"number of {name} actions exceeds policy limit")

    def _check_conflicts(self, action: Action) -> None:
        """What is refused is not kept, too (RFC 5429 §2.5)."""
        delivers = (Keep, FileInto, Redirect, Pipe)
        for other in self.actions:
            kinds = {type(action), type(other)}
            if Reject in kinds and kinds & set(delivers):
                raise RunProblem(
                    f"the {type(action).__name__.lower()} action conflicts with the earlier "
                    f"{type(other).__name__.lower()} action (line {other.place.line})"
                )
            if kinds == {Reject, Reply}:
                raise RunProblem("a message that is rejected has no vacation reply")
            if kinds == {Reject}:
                raise RunProblem("the message is rejected twice, for different reasons")

    def made(self, octets: int) -> None:
        """A text of this size was made for an action. Raises RunProblem when all of them are too large."""
        self.result_octets += octets
        if self.result_octets > self.limits.result_octets:
            raise RunProblem("the texts that this script makes are too large")

    # Texts

    def text(self, value: Text) -> str:
        """A string with its variables. Raises RunProblem where it becomes too long."""
        if isinstance(value, str):
            return value
        return self._expanded(value)

    def texts(self, values: tuple[Text, ...]) -> tuple[str, ...]:
        """Strings with their variables put in. Raises RunProblem where they become too long together."""
        self.charge(len(values) // LITERALS_A_STEP)
        for value in values:
            if not isinstance(value, str):
                self.charge(len(values))
                return self._all_expanded(values)
        return values  # type: ignore[return-value] # all of them are

    def _all_expanded(self, values: tuple[Text, ...]) -> tuple[str, ...]:
        texts: list[str] = []
        left = self.limits.string_octets
        for value in values:
            text = self.text(value)
            left -= 0 if text is value else len(text)
            if left < 0:
                raise RunProblem("the texts of a list are too long with their variables")
            texts.append(text)
        return tuple(texts)

    def _expanded(self, template: Template) -> str:
        pieces: list[str] = []
        size = 0
        for part in template.parts:
            piece = part if isinstance(part, str) else self.variable(part)
            size += len(piece)
            if size > self.limits.string_octets:
                raise RunProblem("a text with its variables is too long")
            pieces.append(piece)
        self.charge(len(pieces) // 8)
        self.looked_at(size)
        return "".join(pieces)

    def variable(self, reference: Reference | Matched) -> str:
        """Its value; empty where it has none."""
        frame = self.frames[-1]
        if isinstance(reference, Matched):
            number = reference.number
            return frame.matched[number] if number < len(frame.matched) else ""
        if reference.namespace:
            return self._in_namespace(reference)
        if reference.name in frame.shared:
            return self.shared.get(reference.name, "")
        return frame.variables.get(reference.name, "")

    def _in_namespace(self, reference: Reference) -> str:
        if reference.namespace == "global":
            return self.shared.get(reference.name, "")
        path = f"{reference.namespace}.{reference.name}".removeprefix("env.")
        return self.circumstances.variables.get(path, "")

    def set_variable(self, reference: Reference, value: str) -> None:
        """Longer values are cut. Raises RunProblem for one variable too many."""
        frame = self.frames[-1]
        is_shared = reference.namespace == "global" or reference.name in frame.shared
        variables = self.shared if is_shared else frame.variables
        if reference.name not in variables and len(variables) >= self.limits.variables:
            raise RunProblem("there are too many variables")
        variables[reference.name] = cut(value, self.limits.value_octets)

    def set_matched(self, values: list[str]) -> None:
        """Match values of the last test that held and has some (RFC 5229 §3.2)."""
        most = self.limits.value_octets
        self.frames[-1].matched = [
            value if len(value) * 4 <= most else cut(value, most)
            for value in values[: self.limits.match_values]
        ]


def cut(text: str, octets: int) -> str:
    """As much of a text as has so many octets, no character cut."""
    if len(text) * 4 <= octets:
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= octets:
        return text
    return encoded[:octets].decode("utf-8", "ignore")


def _merged(other: Action, action: Action) -> Action:
    """Of two that are the same action the later one's flags count (RFC 5232 §5)."""
    if isinstance(other, Keep | FileInto) and isinstance(action, Keep | FileInto):
        return replace(other, flags=action.flags)
    return other
