"""A script's commands checked against what there is and what it requires: RFC 5228 §2.10.5, §3, §6.

One problem a command is told, then it goes on with what is inside and behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from murder.sieve.check.spec import (
    ADDRESS_PART,
    COMPARATOR,
    MATCHING,
    Argument,
    Call,
    Extension,
    Tag,
    Takes,
    Tests,
    Word,
    where_enabled,
)
from murder.sieve.check.templates import Matched, Template, Text, decode_characters, parse_template
from murder.sieve.grammar import tree
from murder.sieve.grammar.source import Source
from murder.sieve.grammar.tree import Node, describe
from murder.sieve.limits import Limits, Policy
from murder.sieve.match.comparators import COMPARATORS, DEFAULT, IMPLIED, TOLERATED
from murder.sieve.match.kinds import IS, Kind, Over
from murder.sieve.match.matching import Matching
from murder.sieve.problem import Problem

COMPARATOR_PREFIX: Final = "comparator-"
DECLARING: Final = frozenset({"require", "global", "import", "export"})  # stand before all others
_GROUPS: Final = (MATCHING, ADDRESS_PART)


class Wrong(Exception):
    """What is wrong with a command; nothing more is told about it."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at = at
        self.text = text


class Checker:
    """State of one check. `required` grows with `require` and `ihave`."""

    def __init__(
        self,
        source: Source,
        core: Extension,
        available: Mapping[str, Extension],
        limits: Limits,
        policy: Policy,
    ) -> None:
        self.source = source
        self.limits = limits
        self.policy = policy
        self.required: set[str] = set()
        self.offered: set[str] = set()  # of these what an `ihave` has brought
        self.includes: list[tuple[str, bool, bool, int]] = []
        self.warnings: list[Problem] = []
        self.around: list[Call] = []  # commands whose blocks are open
        self.patterns = 0  # regular expressions so far
        self.pieces = 0  # of keys
        self.set_here: set[str] = set()  # variables that commands so far have set
        self.shared_here: set[str] = set()  # and those that `global` names (RFC 6609 §3.4.1)
        self.is_early = True  # nothing but declarations has come yet
        self.late_is_told = False  # of an `import` or `export` behind another command
        self._available = available
        self._words: dict[tuple[bool, str], Word] = {}  # by what they are, and name
        self._tags: dict[str, dict[str, Tag]] = {}
        self._checks: dict[str, list[Any]] = {}
        self._unknown: set[tuple[str, str]] = set()  # told once
        self._offers: dict[tuple[str, str], str] = {}  # by word and tag, "" for itself: extension
        self._load(core)

    def warn(self, at: int, text: str) -> None:
        """Of what is allowed, but hardly meant."""
        if len(self.warnings) < self.limits.problems:
            self.warnings.append(Problem(*self.source.place(at), text))

    # What there is

    def knows(self, name: str) -> bool:
        """Whether it could be required."""
        if name.startswith(COMPARATOR_PREFIX):
            return name.removeprefix(COMPARATOR_PREFIX) in COMPARATORS
        return name in self._available

    def require(self, name: str, *, by_ihave: bool = False) -> None:
        """From here on it can be used; `by_ihave`: in a run, where that has been asked. Raises ValueError for what cannot be
        required, or not beside others."""
        if name in self.required:
            return
        if not self.knows(name):
            raise ValueError(f"unknown Sieve capability '{name}'")
        extension = self._available.get(name)
        for other in self.required:
            known = self._available.get(other)
            excluded = extension.excludes if extension else ()
            if other in excluded or (known and name in known.excludes):
                raise ValueError(f"'{name}' and '{other}' cannot be used in one script")
        self.required.add(name)
        if by_ihave:
            self.offered.add(name)
        if extension is not None:
            self._load(extension)
            if by_ihave:
                self._offer(extension)
            for implied in extension.implies:
                self.require(implied, by_ihave=by_ihave)

    def _offer(self, extension: Extension) -> None:
        """Know again what it has brought."""
        offers = [(word.name, "") for word in extension.words]
        offers += [(name, tag.name) for name, tags in extension.tags.items() for tag in tags]
        offers += [(MATCHING, kind.name) for kind in extension.matches]
        self._offers.update(dict.fromkeys(offers, extension.name))

    def brought_by(self, names: Sequence[str]) -> frozenset[str]:
        """All that an `ihave` of these enables."""
        implied = [self._available[name].implies for name in names if name in self._available]
        return frozenset(names).union(*implied)

    def _needs(self, call: Call, word: str, tag: str = "") -> None:
        if (name := self._offers.get((word, tag))) is not None:
            call.needs |= {name}

    def _load(self, extension: Extension) -> None:
        for word in extension.words:
            self._words[word.is_test, word.name] = word
            self._tags.setdefault(word.name, {}).update({tag.name: tag for tag in word.tags})
        for name, tags in extension.tags.items():
            self._tags.setdefault(name, {}).update({tag.name: tag for tag in tags})
        for kind in extension.matches:
            takes = Takes.STRING if kind.has_operator else None
            tag = Tag(kind.name, takes, MATCHING, kind)
            self._tags.setdefault(MATCHING, {})[kind.name] = tag
        for name, check in extension.checks.items():
            self._checks.setdefault(name, []).append(check)

    def _tag(self, word: Word, name: str) -> Tag | None:
        known = self._tags[word.name].get(name)
        if known is None:
            groups = {tag.group for tag in word.tags}
            for group in _GROUPS:
                if group in groups and known is None:
                    known = self._tags.get(group, {}).get(name)
        if known is not None and known.needs and known.needs not in self.required:
            return None
        return known

    # Commands

    def script(self, nodes: Sequence[Node]) -> tuple[Call, ...]:
        """All of it."""
        calls = self.commands(nodes)
        for name in sorted(self.required):
            known = self._available.get(name)
            for needed in known.needs if known is not None else ():
                if needed not in self.required:
                    self.source.report(
                        0, f"extension '{name}' needs '{needed}' to be required, too"
                    )
        return calls

    def commands(self, nodes: Sequence[Node]) -> tuple[Call, ...]:
        """The commands of a block, in order; those with problems are left out."""
        calls: list[Call] = []
        before = ""
        for node in nodes:
            if self.source.is_full:
                break
            try:
                self.order(node, before)
                call = self.call(node, is_test=False)
                if call is not None:
                    calls.append(call)
                    self.is_early = self.is_early and node.name in DECLARING
            except Wrong as wrong:
                self.source.report(wrong.at, wrong.text)
            before = node.name
        return tuple(calls)

    def order(self, node: Node, before: str) -> None:
        """Raises Wrong for an `elsif` without its `if`, and a `require` behind another command."""
        if node.name in ("elsif", "else") and before not in ("if", "elsif"):
            raise Wrong(
                node.at, f"the {node.name} command must follow an if or elsif command directly"
            )
        if node.name == "require" and (self.around or before not in ("", "require")):
            raise Wrong(
                node.at, "require commands can only be placed at top level at the beginning"
            )

    def call(self, node: Node, *, is_test: bool) -> Call | None:
        """Raises Wrong."""
        word = self._word(node, is_test)
        if word is None:
            return None
        call = Call(word, node.at, *self.source.place(node.at))
        self._needs(call, word.name)
        is_sound = self._holds(self._arguments, call, node)
        is_sound = self._holds(self._shape, call, node) and is_sound
        if is_sound:
            is_sound = self._holds(self._checked, call, node)
        if is_sound and word.ready is not None:
            call.run = word.ready(call) or word.run
        if call.needs and call.run is not None:
            call.run = where_enabled(call.run, call.needs)
        if word.tests is not Tests.NONE:
            call.tests = self._tests(node)
        if word.is_test:
            call.constant = call.constant if call.constant is not None else _constant(call)
        self._block(call, node)
        return call if is_sound else None

    def _holds(self, check: Callable[[Call, Node], None], call: Call, node: Node) -> bool:
        try:
            check(call, node)
        except Wrong as wrong:
            if wrong.text:
                self.source.report(wrong.at, wrong.text)
            return False
        return True

    def _checked(self, call: Call, node: Node) -> None:
        """What the word itself, and extensions of it, have to say."""
        call.word.check(self, call, node)
        for check in self._checks.get(call.word.name, ()):
            check(self, call, node)

    def _block(self, call: Call, node: Node) -> None:
        if not call.word.block or node.block is None:
            return
        if call.tests and call.tests[0].constant is False and call.word.name in ("if", "elsif"):
            return  # RFC 5463 §4: what is not there may be used where it is never run
        self.around.append(call)
        call.block = self.commands(node.block)
        self.around.pop()

    def _word(self, node: Node, is_test: bool) -> Word | None:
        word = self._words.get((is_test, node.name))
        kind = "test" if is_test else "command"
        if word is None and (other := self._words.get((not is_test, node.name))) is not None:
            raise Wrong(node.at, f"attempted to use {other.kind} '{node.name}' as {kind}")
        if word is None:
            if (kind, node.name) in self._unknown:
                return None
            self._unknown.add((kind, node.name))
            note = "(only reported once at first occurrence)"
            self.source.report(node.at, f"unknown {kind} '{node.name}' {note}")
            return None
        return word

    def _tests(self, node: Node) -> tuple[Call, ...]:
        calls = []
        for test in node.tests:
            try:
                call = self.call(test, is_test=True)
                if call is not None:
                    calls.append(call)
            except Wrong as wrong:
                self.source.report(wrong.at, wrong.text)
        return tuple(calls)

    def _shape(self, call: Call, node: Node) -> None:
        """Tests and block, as the word has them. Raises Wrong."""
        word, where = call.word, f"the {node.name} {call.word.kind}"
        match word.tests:
            case Tests.NONE if node.tests or node.tests_listed:
                raise self._spurious_tests(word, node)
            case Tests.ONE if not node.tests:
                raise Wrong(node.at, f"{where} requires one sub-test, but none is specified")
            case Tests.ONE if node.tests_listed:
                raise Wrong(
                    node.at, f"{where} requires one sub-test, but a list of tests is specified"
                )
            case Tests.LIST if not node.tests:
                raise Wrong(node.at, f"{where} requires a list of sub-tests, but none is specified")
            case Tests.LIST if not node.tests_listed:
                raise Wrong(
                    node.at, f"{where} requires a list of sub-tests, but a single test is specified"
                )
            case _:
                pass
        if word.block and node.block is None:
            raise Wrong(node.at, f"{where} requires a command block, but it is missing")
        if not word.block and node.block is not None:
            raise Wrong(
                node.at, f"{where} does not accept a command block, but one is specified anyway"
            )

    def _spurious_tests(self, word: Word, node: Node) -> Wrong:
        """Most often something is missing before them."""
        command = f"the {node.name} {word.kind}"
        if not node.tests_listed and len(node.tests) == 1:
            name = node.tests[0].name
            if self._tag(word, name) is not None:
                return Wrong(
                    node.at, f"missing colon ':' before ':{name}' tag in {node.name} {word.kind}"
                )
            is_test = (True, name) in self._words
            if not word.is_test and node.block is None and not is_test:
                return Wrong(node.at, f"missing semicolon ';' after {node.name} {word.kind}")
        return Wrong(node.at, f"{command} accepts no sub-tests, but tests are specified")

    # Arguments

    def _arguments(self, call: Call, node: Node) -> None:
        given = list(node.arguments)
        command = f"the {node.name} {call.word.kind}"
        tags = self._known_tags(call, given, command)
        at = 0
        groups: set[str] = set()
        while at < len(given) and isinstance(tag := given[at], tree.Tag):
            at = self._one_tag(call, tag, tags[tag.name], given, at + 1, command, groups)
        for argument in given[at:]:
            if isinstance(argument, tree.Tag):
                raise Wrong(
                    argument.at,
                    f"encountered an unexpected tagged argument ':{argument.name}' while validating "
                    f"positional arguments for {command}",
                )
        self._positional(call, node, given[at:], command)
        self._matching(call, node)

    def _known_tags(self, call: Call, given: Sequence[tree.Argument], where: str) -> dict[str, Tag]:
        tags: dict[str, Tag] = {}
        for argument in given:
            if not isinstance(argument, tree.Tag):
                continue
            tag = self._tag(call.word, argument.name)
            if tag is None:
                raise Wrong(argument.at, self._once(call.word, argument.name, where))
            tags[argument.name] = tag
        return tags

    def _one_tag(
        self,
        call: Call,
        given_tag: tree.Tag,
        tag: Tag,
        given: Sequence[tree.Argument],
        at: int,
        where: str,
        groups: set[str],
    ) -> int:
        """Take a tag and what belongs to it; where it goes on."""
        key = tag.group or tag.name
        if key in groups:
            what = f":{tag.name} argument"
            if tag.group.startswith(":"):
                what = f"{tag.group[1:]} argument (:{tag.name})"
            raise Wrong(given_tag.at, f"encountered duplicate {what} for {where}")
        groups.add(key)
        self._needs(call, call.word.name, tag.name)
        self._needs(call, tag.group, tag.name)
        if tag.needs in self.offered:
            call.needs |= {tag.needs}
        if tag.takes is None:
            call.tags[key] = tag.name if tag.value is None else tag.value
            return at
        needs = f"the :{tag.name} tag for {where} requires {tag.takes.value} as parameter"
        if at >= len(given):
            raise Wrong(given_tag.at, f"{needs}, but no parameters were found")
        argument = given[at]
        if not _fits(argument, tag.takes):
            raise Wrong(argument.at, f"{needs}, but {describe(argument)} was found")
        value = self._value(argument, tag.takes)
        if tag.value is not None:
            call.tags[key] = tag.value
            call.tags[tag.name] = value
        else:
            call.tags[key] = value
        return at + 1

    def _positional(
        self, call: Call, node: Node, given: Sequence[tree.Argument], where: str
    ) -> None:
        places = call.word.arguments
        left_out = len(places) - len(given)
        if left_out > 0:
            places = _without_optional(places, left_out)
        if len(places) != len(given):
            count = len(call.word.arguments)
            if any(place.optional for place in call.word.arguments):
                count = len(places)
            raise Wrong(
                node.at,
                f"{where} requires {count} positional argument(s), but {len(given)} is/are specified",
            )
        values: dict[int, Any] = {}
        for number, (place, argument) in enumerate(zip(places, given, strict=True), 1):
            if not _fits(argument, place.takes):
                raise Wrong(
                    argument.at,
                    f"{where} expects {place.takes.value} as argument {number} ({place.name}), "
                    f"but {describe(argument)} was found",
                )
            values[id(place)] = self._value(argument, place.takes)
        call.arguments = tuple(values.get(id(place)) for place in call.word.arguments)

    def _value(self, argument: tree.Argument, takes: Takes) -> Any:
        match argument:
            case tree.Number(value=value):
                return value
            case tree.String() if takes is Takes.STRINGS:
                return (self.text(argument),)
            case tree.String():
                return self.text(argument)
            case tree.StringList(strings=strings):
                return tuple(self.text(string) for string in strings)
            case _:
                return None

    def text(self, string: tree.String) -> Text:
        """A string, or a template where variables are allowed. Raises Wrong."""
        value = string.value
        if "${" not in value:
            return value
        if "encoded-character" in self.required:
            try:
                value = decode_characters(value)
            except ValueError as error:
                raise Wrong(string.at, str(error)) from None
        if "variables" not in self.required:
            return value
        text = parse_template(value)
        if isinstance(text, Template):
            self._check_references(text, string.at)
        return text

    def _check_references(self, text: Template, at: int) -> None:
        for part in text.parts:
            if isinstance(part, str):
                continue
            if isinstance(part, Matched):
                if part.number >= self.limits.match_values:
                    most = self.limits.match_values - 1
                    raise Wrong(at, f"match value index {part.number} is out of range (max {most})")
            elif part.namespace:
                self._check_namespace(part.namespace, at)
            elif len(part.name) > self.limits.name_octets:
                most = self.limits.name_octets
                raise Wrong(at, f"variable name '{part.name[:20]}...' is too long (max {most})")

    def _check_namespace(self, namespace: str, at: int) -> None:
        needs = {"global": "include", "env": "vnd.dovecot.environment"}.get(
            namespace.partition(".")[0]
        )
        if needs is None or needs not in self.required:
            raise Wrong(at, f"unknown variable namespace '{namespace}'")

    def _once(self, word: Word, name: str, where: str) -> str:
        """Of a tag that no extension brings, told where it is first used; empty behind that."""
        if (word.name, f":{name}") in self._unknown:
            return ""
        self._unknown.add((word.name, f":{name}"))
        return f"unknown tagged argument ':{name}' for {where} (reported only once at first occurrence)"

    # Match types

    def _matching(self, call: Call, node: Node) -> None:
        """Match type, comparator and keys, where the word has them: its last argument are the keys."""
        if not any(tag.group == MATCHING for tag in call.word.tags):
            return
        kind: Kind = call.tags.get(MATCHING, IS)
        default = self.policy.string_comparator if node.name == "string" else DEFAULT
        name = call.tags.get(COMPARATOR, default)
        comparator = COMPARATORS.get(name) if isinstance(name, str) else None
        command = f"the {node.name} {call.word.kind}"
        if comparator is None:
            raise Wrong(node.at, f"unknown comparator '{name}' for {command}")
        if name not in IMPLIED and f"{COMPARATOR_PREFIX}{name}" not in self.required:
            text = f"comparator '{name}' for {command} is not required"
            if name not in TOLERATED:
                raise Wrong(node.at, text)
            self.warn(node.at, text)
        if f"{COMPARATOR_PREFIX}{name}" in self.offered:
            call.needs |= {f"{COMPARATOR_PREFIX}{name}"}
        if kind.over is Over.LISTS and COMPARATOR in call.tags:
            raise Wrong(node.at, f"the :list match type for {command} takes no comparator")
        if kind.finds and not comparator.finds:
            raise Wrong(
                node.at,
                f"the specified {name} comparator does not support sub-string matching as required "
                f"by the :{kind.name} match type",
            )
        matching = Matching(kind, comparator, self._operator(call, kind, node))
        keys = call.arguments[-1]
        keys = keys if isinstance(keys, tuple) else (keys,)
        if kind.over is not Over.LISTS and all(isinstance(key, str) for key in keys):
            try:
                matching = matching.prepared(keys)
            except ValueError as error:
                raise Wrong(
                    node.at, f"invalid key for the :{kind.name} match type: {error}"
                ) from None
        self.patterns += matching.patterns
        self.pieces += matching.pieces
        if self.patterns > self.limits.patterns:
            raise Wrong(
                node.at,
                f"the script has more than {self.limits.patterns} regular expressions, or patterns with '?'",
            )
        call.matching = matching

    def _operator(self, call: Call, kind: Kind, node: Node) -> str:
        if not kind.has_operator:
            return ""
        operator = call.tags[kind.name]
        if operator not in ("gt", "ge", "lt", "le", "eq", "ne"):
            raise Wrong(
                node.at,
                f"the :{kind.name} match type requires a constant string argument being one of "
                f'"gt", "ge", "lt", "le", "eq" or "ne"',
            )
        return str(operator)


def _fits(argument: tree.Argument, takes: Takes) -> bool:
    match takes:
        case Takes.NUMBER:
            return isinstance(argument, tree.Number)
        case Takes.STRING:
            return isinstance(argument, tree.String)
        case Takes.STRINGS:
            return isinstance(argument, tree.String | tree.StringList)


def _without_optional(places: Sequence[Argument], count: int) -> tuple[Argument, ...]:
    kept = []
    for place in places:
        if place.optional and count > 0:
            count -= 1
        else:
            kept.append(place)
    return tuple(kept)


def _constant(call: Call) -> bool | None:
    """The outcome of a test, where it is the same whatever the message."""
    known = [test.constant for test in call.tests]
    match call.word.name:
        case "true":
            return True
        case "false":
            return False
        case "not" if known and known[0] is not None:
            return not known[0]
        case "allof" if False in known:
            return False
        case "anyof" if True in known:
            return True
        case "allof" | "anyof" if known and None not in known:
            return call.word.name == "allof"
        case _:
            return None
