"""Plays a transcript against a server: what clients say, and what must come back, line by line.

    # a comment
    C1: a1 LOGIN ana secret        connection 1 says this (CRLF is added)
    S1: a1 OK $text                the next line from the server must be this
    S1~ * $n EXISTS                some line before the next tagged one must be this; others are passed over
    C1: a2 APPEND INBOX {...}      the size of the lines marked `>` that follow goes into the braces, as {n+}
    C1> Subject: hello             (each with CRLF; they and a CRLF are sent behind)
    C1= NOOP                       a whole command with a tag of its own; its untagged lines are passed over,
                                   and it must end in OK

A connection is opened when it is first named; its greeting is passed over. `$name` matches anything and binds it; bound
already, it must be the same; `$_` binds nothing; `$$` is a dollar sign. Words behind C and S may be any: `C1`, `Cana`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

LINE_LIMIT_S: Final = 40.0  # on a machine that does much else
_STEP: Final = re.compile(r"([CS])(\w*)([:~=>])(?: (.*))?$")
_VARIABLE: Final = re.compile(r"\$(\$|\w+)")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[str], Awaitable[Streams]]


class Mismatch(AssertionError):
    """The server said something else."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a transcript, with the block of a literal that belongs to it."""

    number: int
    who: str
    peer: str
    kind: str
    text: str
    block: tuple[str, ...] = ()


def parse_transcript(text: str) -> list[Step]:
    """All steps. Raises ValueError with the line's number."""
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _STEP.match(line)
        if match is None:
            raise ValueError(f"line {number} is no step: {line}")
        who, peer, kind, said = match.groups(default="")
        if kind == ">":
            last = steps[-1]
            steps[-1] = Step(
                last.number, last.who, last.peer, last.kind, last.text, (*last.block, said)
            )
        else:
            steps.append(Step(number, who, peer, kind, said))
    return steps


@dataclass(slots=True)
class Player:
    """Carries out steps. `bound` holds what `$names` have matched, or were given."""

    connect: Connect
    bound: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    _streams: dict[str, Streams] = field(default_factory=dict)
    _tags: int = 0

    async def play(self, text: str, *, keep: bool = False) -> None:
        """The whole transcript; `keep`: it goes on in another. Raises Mismatch with all that was said."""
        try:
            for step in parse_transcript(text):
                await self._step(step)
        finally:
            for _, writer in () if keep else self._streams.values():
                writer.close()

    async def _step(self, step: Step) -> None:
        match step.who, step.kind:
            case "C", ":":
                await self._say(step, self._filled(step.text))
            case "C", "=":
                self._tags += 1
                tag = f"t{self._tags}"
                await self._say(step, f"{tag} {self._filled(step.text)}")
                await self._await_line(step, f"{tag} OK $_", skip_to_tag=True)
            case "S", ":":
                await self._await_line(step, step.text, skip_to_tag=False)
            case "S", "~":
                await self._await_line(step, step.text, skip_to_tag=True)
            case _:
                raise ValueError(f"line {step.number}: {step.who}{step.kind} means nothing")

    async def _stream(self, peer: str) -> Streams:
        if peer not in self._streams:
            self._streams[peer] = await self.connect(peer)
            await self._read(peer)
        return self._streams[peer]

    async def _say(self, step: Step, said: str) -> None:
        _, writer = await self._stream(step.peer)
        octets = said.encode()
        if step.block or "{...}" in said:
            block = b"".join(self._filled(line).encode() + b"\r\n" for line in step.block)
            octets = octets.replace(b"{...}", b"{%d+}\r\n%s" % (len(block), block))
        self.seen.append(f"C{step.peer}: {octets.decode('utf-8', 'backslashreplace')}")
        writer.write(octets + b"\r\n")
        await writer.drain()

    async def _read(self, peer: str) -> str:
        reader, _ = self._streams[peer]
        try:
            line = await asyncio.wait_for(reader.readline(), LINE_LIMIT_S)
        except TimeoutError:
            raise Mismatch(f"S{peer} is silent, after\n" + "\n".join(self.seen[-40:])) from None
        shown = line.decode("utf-8", "backslashreplace").removesuffix("\r\n")
        self.seen.append(f"S{peer}: {shown}")
        if not line:
            self.seen[-1] = f"S{peer} has closed"
        return shown

    async def _await_line(self, step: Step, expected: str, *, skip_to_tag: bool) -> None:
        await self._stream(step.peer)
        while True:
            line = await self._read(step.peer)
            found = self._pattern(expected).fullmatch(line)
            if found is not None:
                self.bound.update(
                    (name, value) for name, value in found.groupdict().items() if value is not None
                )
                return
            is_tagged = not line.startswith(("* ", "+"))
            if not skip_to_tag or is_tagged or self.seen[-1].endswith("has closed"):
                raise Mismatch(
                    f"line {step.number}: expected\n    {self._filled(expected)}\nnot\n    {line}\nafter\n"
                    + "\n".join(self.seen[-40:])
                )

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            return "$" if name == "$" else self.bound.get(name, match.group())

        return _VARIABLE.sub(value, text)

    def _pattern(self, expected: str) -> re.Pattern[str]:
        pieces: list[str] = []
        at = 0
        here: set[str] = set()
        for match in _VARIABLE.finditer(expected):
            pieces.append(re.escape(expected[at : match.start()]))
            at = match.end()
            name = match.group(1)
            if name == "$":
                pieces.append(r"\$")
            elif name == "_":
                pieces.append(".*")
            elif name in self.bound:
                pieces.append(re.escape(self.bound[name]))
            elif name in here:
                pieces.append(f"(?P={name})")
            else:
                here.add(name)
                pieces.append(f"(?P<{name}>.*?)")
        pieces.append(re.escape(expected[at:]))
        return re.compile("".join(pieces), re.DOTALL)
