"""Files of examples, as RFCs print them. One of them:

    = 5228 4.1 what it is about         the RFC, the section, words
    require "fileinto"; ...             the script, whole
    & mailbox Partners                  what there is in the world (`WORLD`)
    & personal NAME                     and another script, up to the next line with &; `global` likewise
    - A to=x@y: fileinto Lists          message A comes to this, ` + ` between actions; what else is said is in `OPTIONS`
    ? A says Subject: x                 a fact of what it came to (`FACTS` of the test)
    ! words                             or: it is refused, and the reason has these words

Messages stand before, from `@ NAME` on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "rfc"
COMMON: Final = "messages.txt"
OPTIONS: Final = frozenset({"to", "from", "big", "now", "again"})  # and `big` is the size in octets
WORLD: Final = frozenset("mailbox list metadata use id address item flag personal global".split())


@dataclass
class Run:
    """A message, and what it comes to; then what else is to be seen."""

    message: str
    options: Mapping[str, str]
    actions: list[str]
    facts: list[tuple[str, str, str]] = field(default_factory=list)  # message, fact, words


@dataclass
class Example:
    """Of one RFC."""

    title: str
    messages: Mapping[str, bytes]
    script: str = ""
    world: list[tuple[str, list[str]]] = field(default_factory=list)
    scripts: dict[tuple[str, bool], str] = field(default_factory=dict)  # name, whether the site's
    runs: list[Run] = field(default_factory=list)
    refused: str = ""


def examples() -> Iterator[Example]:
    """Of all files."""
    common, none = _parsed((FOLDER / COMMON).read_text(encoding="utf-8"), {})
    assert not none
    for path in sorted(FOLDER.glob("*.txt")):
        if path.name != COMMON:
            yield from _parsed(path.read_text(encoding="utf-8"), common)[1]


def _parsed(text: str, common: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[Example]]:
    messages, made = dict(common), list[Example]()
    for block in _blocks(text):
        head, _, rest = block.partition("\n")
        if head.startswith("@ "):
            messages[head[2:]] = rest.rstrip("\n").replace("\n", "\r\n").encode() + b"\r\n"
        else:
            made.append(_example(head[2:], rest, messages))
    return messages, made


def _blocks(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(("@ ", "= ")) and lines:
            yield "\n".join(lines) + "\n"
            lines = []
        lines.append(line)
    yield "\n".join(lines) + "\n"


def _example(title: str, text: str, messages: Mapping[str, bytes]) -> Example:
    example = Example(title, messages)
    other: tuple[str, bool] | None = None
    for line in text.splitlines():
        kind, rest = line[:2], line[2:]
        match kind:
            case "& ":
                word, *values = rest.split()
                other = (values[0], word == "global") if word in ("personal", "global") else None
                if other is None and word != "end":
                    assert word in WORLD, line
                    example.world.append((word, values))
            case "- ":
                other = None
                example.runs.append(_run(rest))
            case "? ":
                message, fact, *words = rest.split(" ", 2)
                example.runs[-1].facts.append((message, fact, " ".join(words)))
            case "! ":
                example.refused = rest
            case _ if other is not None:
                example.scripts[other] = example.scripts.get(other, "") + line + "\n"
            case _:
                assert not example.runs and not example.refused, (title, line)
                example.script += line + "\n"
    assert bool(example.runs) != bool(example.refused), title
    return example


def _run(line: str) -> Run:
    head, _, actions = line.partition(": ")
    message, *words = head.split()
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    assert options.keys() <= OPTIONS, line
    return Run(message, options, actions.replace("\\n", "\r\n").split(" + "))
