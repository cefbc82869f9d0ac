"""How many steps a regular expression takes: a backtracking matcher as `re` has it, which counts.

Time on a busy machine tells little; steps are the same everywhere. It walks the tree that Python's own parser makes of a
pattern, and knows what the patterns of this project use.
"""

import asyncio
import contextlib
import gc
import itertools
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as sre  # type: ignore[attr-defined]
from types import FrameType
from typing import Any, Final, Self

import murder

Text = str | bytes
OURS: Final = str(Path(murder.__file__).parent)


class TooManySteps(Exception):
    """More than anybody wants to wait for."""


class Counted:
    """A compiled pattern as a step-counting matcher."""

    def __init__(self, pattern: "re.Pattern[Any]", limit: int = 50_000) -> None:
        self._pattern = pattern
        self._tree = list(sre.parse(pattern.pattern, pattern.flags))
        self._limit = limit
        self.steps = 0

    def match(self, text: Text, at: int = 0) -> int | None:
        """Where a match at `at` ends."""
        self._text = [ord(one) for one in text] if isinstance(text, str) else list(text)
        self._groups: dict[int, tuple[int, int]] = {}
        return next(self._sequence(self._tree, 0, at, self._pattern.flags), None)

    def search_all(self, text: Text) -> None:
        """As `finditer` and `sub` do: from every place, and on behind each match."""
        at = 0
        while at <= len(text):
            end = self.match(text, at)
            at = at + 1 if end is None or end == at else end

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._limit:
            raise TooManySteps(self._pattern.pattern)

    def _sequence(self, nodes: list[Any], index: int, at: int, flags: int) -> Iterator[int]:
        if index == len(nodes):
            yield at
            return
        for end in self._node(nodes[index], at, flags):
            yield from self._sequence(nodes, index + 1, end, flags)

    def _node(self, node: Any, at: int, flags: int) -> Iterator[int]:
        kind, value = node
        self._step()
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            if at < len(self._text) and self._fits(kind, value, self._text[at], flags):
                yield at + 1
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from self._sequence(list(branch), 0, at, flags)
        elif kind is op.SUBPATTERN:
            number, added, removed, inside = value
            for end in self._sequence(list(inside), 0, at, (flags | added) & ~removed):
                if number is not None:
                    self._groups[number] = (at, end)
                yield end
        elif kind is op.ATOMIC_GROUP:
            yield from self._first(self._sequence(list(value), 0, at, flags))
        elif kind is op.MAX_REPEAT:
            yield from self._repeat(value, at, flags, 0)
        elif kind is op.POSSESSIVE_REPEAT:
            yield from self._first(self._repeat(value, at, flags, 0))
        elif kind is op.MIN_REPEAT:
            yield from self._lazy(value, at, flags, 0)
        elif kind is op.AT:
            if self._stands(value, at, flags):
                yield at
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            direction, inside = value
            begin = at if direction > 0 else at - inside.getwidth()[0]
            found = begin >= 0 and any(
                direction > 0 or end == at for end in self._sequence(list(inside), 0, begin, flags)
            )
            if found == (kind is op.ASSERT):
                yield at
        elif kind is op.GROUPREF:
            start, end = self._groups.get(value, (0, 0))
            piece = self._text[start:end]
            if self._text[at : at + len(piece)] == piece:
                yield at + len(piece)
        else:
            raise NotImplementedError(kind)

    @staticmethod
    def _first(ends: Iterator[int]) -> Iterator[int]:
        for end in ends:
            yield end
            return

    def _repeat(self, value: Any, at: int, flags: int, done: int) -> Iterator[int]:
        """Greedy; without recursion for what is one octet wide, so that long runs are no deep stack."""
        least, most, inside = value
        nodes = list(inside)
        if len(nodes) == 1 and nodes[0][0] in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            end = at
            while end - at < most and any(True for _ in self._node(nodes[0], end, flags)):
                end += 1
            for back in range(end, at + least - 1, -1):
                self._step()
                yield back
            return
        if done < most:
            for end in self._sequence(nodes, 0, at, flags):
                if end > at or done < least:
                    yield from self._repeat(value, end, flags, done + 1)
        if done >= least:
            yield at

    def _lazy(self, value: Any, at: int, flags: int, done: int) -> Iterator[int]:
        least, most, inside = value
        if done >= least:
            yield at
        if done < most:
            for end in self._sequence(list(inside), 0, at, flags):
                if end > at:
                    yield from self._lazy(value, end, flags, done + 1)

    def _stands(self, where: Any, at: int, flags: int) -> bool:
        text, line_end = self._text, 10
        if where is op.AT_BEGINNING_STRING or (where is op.AT_BEGINNING and not flags & re.M):
            return at == 0
        if where is op.AT_BEGINNING:
            return at == 0 or text[at - 1] == line_end
        if where is op.AT_END_STRING:
            return at == len(text)
        if where is op.AT_END:
            last = at == len(text) or (at == len(text) - 1 and text[at] == line_end)
            return last or bool(flags & re.M and text[at] == line_end)
        if where in (op.AT_BOUNDARY, op.AT_NON_BOUNDARY):
            before, behind = (
                at > 0 and _is_word(text[at - 1]),
                at < len(text) and _is_word(text[at]),
            )
            return (before != behind) == (where is op.AT_BOUNDARY)
        raise NotImplementedError(where)

    def _fits(self, kind: Any, value: Any, octet: int, flags: int) -> bool:
        if kind is op.ANY:
            return octet != 10 or bool(flags & re.S)
        octets = {octet}
        if flags & re.I and octet < 128:
            octets |= {ord(chr(octet).lower()), ord(chr(octet).upper())}
        if kind is op.LITERAL:
            return value in octets
        if kind is op.NOT_LITERAL:
            return value not in octets
        negated = value[0][0] is op.NEGATE
        return any(_in_set(one, each) for one in value[negated:] for each in octets) != negated


def _is_word(octet: int) -> bool:
    return chr(octet).isalnum() or octet == 95


CATEGORIES: dict[Any, Callable[[int], bool]] = {
    op.CATEGORY_DIGIT: lambda octet: 48 <= octet <= 57,
    op.CATEGORY_NOT_DIGIT: lambda octet: not 48 <= octet <= 57,
    op.CATEGORY_SPACE: lambda octet: octet in (32, 9, 10, 11, 12, 13),
    op.CATEGORY_NOT_SPACE: lambda octet: octet not in (32, 9, 10, 11, 12, 13),
    op.CATEGORY_WORD: _is_word,
    op.CATEGORY_NOT_WORD: lambda octet: not _is_word(octet),
}


def _in_set(item: Any, octet: int) -> bool:
    kind, value = item
    if kind is op.LITERAL:
        return bool(octet == value)
    if kind is op.RANGE:
        return bool(value[0] <= octet <= value[1])
    return CATEGORIES[value](octet)


def interesting(pattern: "re.Pattern[Any]") -> list[int]:
    """A few octets that the pattern tells apart from others."""
    found: dict[int, None] = {}

    def walk(nodes: Any) -> None:
        for kind, value in nodes:
            if kind in (op.LITERAL, op.NOT_LITERAL):
                found[value] = None
            elif kind is op.RANGE:
                found[value[0]] = None
            elif kind is op.IN:
                walk([one for one in value if one[0] in (op.LITERAL, op.RANGE)])
            elif kind is op.BRANCH:
                for branch in value[1]:
                    walk(branch)
            elif kind is op.SUBPATTERN:
                walk(value[3])
            elif kind is op.ATOMIC_GROUP:
                walk(value)
            elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
                walk(value[2])
            elif kind in (op.ASSERT, op.ASSERT_NOT):
                walk(value[1])

    walk(sre.parse(pattern.pattern, pattern.flags))
    return list(found)


def literal_head(pattern: "re.Pattern[Any]") -> bytes:
    """The octets that every match begins with."""
    head = itertools.takewhile(
        lambda node: node[0] is op.LITERAL, sre.parse(pattern.pattern, pattern.flags)
    )
    return bytes(value for _, value in head if value < 256)


@contextlib.contextmanager
def garbage_kept() -> Iterator[None]:
    """The collector does not come by while something is counted: it calls who wants to hear of it, as Hypothesis does from
    its first test in this process on."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def lines_run(function: Callable[..., object], *arguments: object) -> int:
    """How many lines of Python are run by a call: what its cost grows with, on any machine."""
    count = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    with garbage_kept():
        sys.settrace(trace)
        try:
            function(*arguments)
        finally:
            sys.settrace(before)
    return count


class Profiled:
    """While this is entered, `note` hears of each call in this thread and of each return, as `sys.setprofile` tells it: the
    frame, the event and its object. No function of a library is called for it, which would be counted."""

    def __init__(self, note: Callable[[FrameType, str, Any], None]) -> None:
        self._note = note
        self._garbage = garbage_kept()

    def __enter__(self) -> None:
        self._garbage.__enter__()
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._garbage.__exit__(None, None, None)


def counting_calls(calls: Counter[str]) -> Profiled:
    """Add up the calls of murder's own functions in this thread, by where they lead."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            calls[f"{frame.f_code.co_filename[len(OURS) :]}:{frame.f_code.co_name}"] += 1

    return Profiled(note)


class Turns:
    """How many lines of murder's own the event loop's thread runs in its longest turn, while this is entered: what one
    command keeps all others waiting for, on any machine. Calls that had begun before are not counted."""

    def __init__(self) -> None:
        self.longest = 0
        self._lines = 0

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        if frame.f_globals.get("__name__", "").startswith("murder."):
            return self._count
        return None

    def _count(self, frame: Any, event: str, _: object) -> Any:
        self._lines += event == "line"
        return self._count

    async def _tick(self) -> None:
        while True:
            self._lines = 0
            await asyncio.sleep(0)
            self.longest = max(self.longest, self._lines)

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.ensure_future(self._tick())
        await asyncio.sleep(0)
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    async def __aexit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._ticking.cancel()


class Calls:
    """How often a function of this name is called in the longest turn of the event loop's thread, while this is entered."""

    def __init__(self, name: str) -> None:
        self.longest = 0
        self._name = name
        self._calls = 0
        self._profiled = Profiled(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        self._calls += event == "call" and frame.f_code.co_name == self._name

    async def _tick(self) -> None:
        while True:
            self._calls = 0
            await asyncio.sleep(0)
            self.longest = max(self.longest, self._calls)

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.ensure_future(self._tick())
        self._profiled.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._profiled.__exit__()
        self._ticking.cancel()


class Freed:
    """How many blocks of memory are freed between two lines of these modules at most, in whatever thread, while this is
    entered: what one call of C lets go of keeps everybody waiting. Threads that run already are not looked at."""

    def __init__(self, *modules: str) -> None:
        self.most = 0
        self._modules = modules
        self._last = 0

    def _trace(self, frame: Any, _: str, __: object) -> Any:
        return self._look if frame.f_globals.get("__name__", "").startswith(self._modules) else None

    def _look(self, frame: Any, event: str, _: object) -> Any:
        now = sys.getallocatedblocks()
        self.most = max(self.most, self._last - now)
        self._last = now
        return self._look

    def __enter__(self) -> Self:
        self._garbage = garbage_kept()
        self._garbage.__enter__()
        self._before = sys.gettrace()
        self._last = sys.getallocatedblocks()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        threading.settrace(None)
        self._garbage.__exit__(None, None, None)
