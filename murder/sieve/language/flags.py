"""Flags of messages: RFC 5232. A flag's name is not checked beyond its form: who stores it knows what it can be."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.check.templates import Reference
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match_keys
from murder.sieve.problem import RunProblem
from murder.sieve.run.machine import Machine
from murder.sieve.run.words import SYSTEM_FLAGS, canonical_flags

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

MOST_FLAGS: Final = 100  # of one message
MAX_CHARACTERS: Final = 16 * 1024  # of a list: with as many flags as long as can be it has a third
FEW_NAMES: Final = 4  # of variables, looked at at once
NAME_STEPS: Final = 500  # of one with as many words as it may have
MAX_VALUES: Final = 10_000  # flags of all of them that are looked at
# flag-keyword = atom (RFC 9051 §9)
_KEYWORD: Final = re.compile(r'[^\s\x00-\x1f\x7f-\U0010ffff(){%*"\\\]]{1,64}\Z')
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def split_flags(texts: Iterable[str]) -> tuple[str, ...]:
    """Flags out of lists with blanks between them (RFC 5232 §2), each once; what is no flag is left out. Raises
    RunProblem."""
    flags: dict[str, str] = {}
    left = MAX_CHARACTERS
    for text in texts:
        left -= len(text)
        if left < 0:
            raise RunProblem(f"a list of flags has more than {MAX_CHARACTERS} characters")
        for word in text.split():
            key = word.lower()
            if (key in SYSTEM_FLAGS or _KEYWORD.match(word)) and len(flags) < MOST_FLAGS:
                flags.setdefault(key, word)
    return tuple(flags.values())


def flags_of(machine: Machine, call: Call) -> tuple[str, ...] | None:
    """Those that an action sets: of its `:flags`, else of the internal variable."""
    given = call.tags.get("flags")
    flags = machine.flags if given is None else split_flags(machine.texts(given))
    return None if flags is None else canonical_flags(flags)


def _name(call: Call) -> str | None:
    """The variable that is meant, None for the internal one."""
    return call.data if isinstance(call.data, str) else None


def _current(machine: Machine, name: str | None) -> tuple[str, ...]:
    if name is not None:
        return split_flags((machine.variable(_reference(name)),))
    if machine.flags is not None:
        return machine.flags
    return machine.circumstances.flags or ()


def _reference(name: str) -> Reference:
    namespace, _, last = name.rpartition(".")
    return Reference(last, namespace)


def _store(machine: Machine, name: str | None, flags: tuple[str, ...]) -> None:
    if name is None:
        machine.flags = flags
    else:
        machine.set_variable(_reference(name), " ".join(flags))


def _set(machine: Machine, call: Call) -> Result:
    _store(machine, _name(call), split_flags(machine.texts(call.arguments[1])))
    return None


def _add(machine: Machine, call: Call) -> Result:
    name = _name(call)
    given = machine.texts(call.arguments[1])
    _store(machine, name, split_flags((*_current(machine, name), *given)))
    return None


def _remove(machine: Machine, call: Call) -> Result:
    name = _name(call)
    gone = {flag.lower() for flag in split_flags(machine.texts(call.arguments[1]))}
    kept = tuple(flag for flag in _current(machine, name) if flag.lower() not in gone)
    _store(machine, name, kept)
    return None


def _check_variable(checker: "Checker", call: Call, node: "Node") -> None:
    """The first argument, a variable's name, can be left out."""
    value: Any = call.arguments[0]
    if value is None:
        return
    if "variables" not in checker.required:
        raise Wrong(
            node.at, f"if a second argument is specified for {node.name}, variables is required"
        )
    names = value if isinstance(value, tuple) else (value,)
    for name in names:
        if not isinstance(name, str) or not all(map(_NAME.match, name.split("."))):
            raise Wrong(node.at, f"invalid variable name '{name}' specified for {node.name}")
    if not isinstance(value, tuple):
        call.data = value.lower()


def _hasflag(machine: Machine, call: Call) -> Result:
    names: Sequence[str] | None = call.arguments[0]
    if names is not None and len(names) > FEW_NAMES:
        return _hasflag_of_many(machine, call, names)
    values: list[str] = []
    for name in [None] if names is None else [given.lower() for given in names]:
        values += _current(machine, name)
    return _matched_flags(machine, call, values)


def _hasflag_of_many(machine: Machine, call: Call, names: Sequence[str]) -> Suspended:
    """Each variable is looked at once, however often it is named."""
    known: dict[str, tuple[str, ...]] = {}
    values: list[str] = []
    for name in map(str.lower, names):
        if name not in known:
            known[name] = _current(machine, name)
            machine.charge(NAME_STEPS if known[name] else 1)
            yield None
        if len(values) < MAX_VALUES:
            values += known[name]
    result = _matched_flags(machine, call, values)
    if isinstance(result, bool) or result is None:
        return result
    return (yield from result)


def _matched_flags(machine: Machine, call: Call, values: Sequence[str]) -> Result:
    assert call.matching is not None
    keys = machine.texts(call.arguments[1])
    if call.matching.tests is None and sum(map(len, keys)) > MAX_CHARACTERS:
        raise RunProblem(f"a list of flags has more than {MAX_CHARACTERS} characters")
    return match_keys(machine, call.matching, _keys(keys), values)


def _keys(texts: Iterable[str]) -> tuple[str, ...]:
    """RFC 5232 §2: a list of flags may stand in one text, also where it is compared with."""
    return tuple(word for text in texts for word in text.split() or [text])


def _check_hasflag(checker: "Checker", call: Call, node: "Node") -> None:
    _check_variable(checker, call, node)
    matching = call.matching
    if matching is not None and matching.tests is not None:
        call.matching = matching.prepared(_keys(call.arguments[1]))


_FLAGS: Final = Argument("flag list", Takes.STRINGS)
_VARIABLE: Final = Argument("variable name", Takes.STRING, optional=True)

_FLAGGED: Final = ("\\Flagged",)


def _mark(machine: Machine, call: Call) -> Result:
    machine.flags = split_flags((*_current(machine, None), *_FLAGGED))
    return None


def _unmark(machine: Machine, call: Call) -> Result:
    kept = [flag for flag in _current(machine, None) if flag.lower() != _FLAGGED[0].lower()]
    machine.flags = tuple(kept)
    return None


# What `imap4flags` was in a draft, and is in many a script: flags are the internal variable's
IMAPFLAGS: Final = Extension(
    "imapflags",
    words=(
        Word("mark", run=_mark),
        Word("unmark", run=_unmark),
        Word("setflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_set),
        Word("addflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_add),
        Word("removeflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_remove),
    ),
    excludes=("imap4flags",),
)
IMAP4FLAGS: Final = Extension(
    "imap4flags",
    words=(
        Word("setflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_set),
        Word("addflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_add),
        Word("removeflag", (_VARIABLE, _FLAGS), check=_check_variable, run=_remove),
        Word(
            "hasflag",
            (Argument("variable list", Takes.STRINGS, optional=True), KEYS),
            MATCH_TAGS,
            is_test=True,
            check=_check_hasflag,
            run=_hasflag,
        ),
    ),
    tags={name: (Tag("flags", Takes.STRINGS),) for name in ("keep", "fileinto")},
)
