"""What an operator asks of a backend as a whole: does it answer, what does it run, how many new mailboxes may it get."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from murder.admin.operate.parts import held
from murder.admin.operate.reach import Reach, data_of
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.wire.token import Scanner

WEIGHT_WORD: Final = b"X-WEIGHT="
WEIGHT_ENTRY: Final = b"/shared/vendor/murder/weight"


@dataclass(frozen=True, slots=True)
class Answer:
    """How it is. `problem` is empty where it answers."""

    weight: float
    answer_s: float = 0.0
    software: str = ""
    problem: str = ""
    kind: UpstreamKind = UpstreamKind.PROTOCOL
    cure: str = ""


async def look(reach: Reach, server: str) -> Answer:
    """Log in and ask. Raises nothing of the backend's."""
    weight = reach.config.server(server).weight
    try:
        upstream = await reach.backend(server)
        began = time.monotonic()
        reply = await reach.execute(server, b"ID NIL")
        took = time.monotonic() - began
        for word in upstream.capabilities:
            if word.startswith(WEIGHT_WORD):
                weight = float(word[len(WEIGHT_WORD) :])
        return Answer(weight, took, _software(data_of(reply, b"ID")))
    except UpstreamFailure as failure:
        return Answer(weight, problem=failure.problem, kind=failure.kind, cure=failure.cure)
    except (Refusal, ValueError) as problem:
        return Answer(weight, problem=str(problem))


def _software(lines: list[bytes]) -> str:
    if not lines or not lines[0].startswith(b"("):
        return ""
    scanner = Scanner(lines[0], 0)
    scanner.open()
    words: list[str] = []
    while not scanner.accept(b")"):
        words.append((scanner.nstring() or b"").decode("utf-8", "replace"))
        if scanner.peek() == b" ":
            scanner.space()
    facts = dict(zip(words[::2], words[1::2], strict=False))
    return f"{facts.get('name', '')} {facts.get('version', '')}".strip()


async def weights(reach: Reach, servers: Iterable[str]) -> dict[str, float]:
    """Each backend's share of new mailboxes, as it says itself or as configured; 0 where it does not answer."""
    asked = list(servers)
    answers = await asyncio.gather(*(look(reach, server) for server in asked))
    return {
        server: 0.0 if answer.problem else answer.weight
        for server, answer in zip(asked, answers, strict=True)
    }


async def set_weight(reach: Reach, server: str, weight: float | None) -> None:
    """Kept by the backend itself, which tells every frontend; None: as configured. Raises Refusal, UpstreamFailure."""
    value = b"NIL" if weight is None else b'"%g"' % weight
    await reach.execute(server, b'SETMETADATA "" (%s %s)' % (WEIGHT_ENTRY, value))
    upstream = await reach.backend(server)
    kept = {word for word in upstream.capabilities if not word.startswith(WEIGHT_WORD)}
    if weight is not None:
        kept.add(WEIGHT_WORD + b"%g" % weight)
    upstream.capabilities = frozenset(kept)


def backends_of(reach: Reach, rows: Collection[MailboxEntry]) -> list[str]:
    """Every backend of the murder, by the list and the configuration."""
    return sorted({row.server for row in rows if row.server} | set(reach.config.servers))


async def all_backends(reach: Reach) -> list[str]:
    """The same, for who has no rows and wants none. Raises UpstreamFailure."""
    return sorted(set(await held(reach)) | set(reach.config.servers))


async def find_backend(reach: Reach, server: str) -> str:
    """The name of one of all. Raises Refusal with those that are known, UpstreamFailure."""
    return need_backend(reach, await all_backends(reach), server)


def need_backend(reach: Reach, known: Sequence[str], server: str) -> str:
    """The name of one of these. Raises Refusal with them."""
    if server in known:
        return server
    near = [backend for backend in known if backend.split(".")[0] == server]
    if len(near) == 1:
        return near[0]
    text = f"No backend is called {server}; known are {', '.join(known) or 'none'}"
    hint = f'an empty one becomes known by a line [servers."{server}"] in {reach.config.file}'
    raise Refusal(Code.NONEXISTENT, f"{text}\n{hint}")
