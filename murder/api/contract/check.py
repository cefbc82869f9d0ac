"""How a check is written and run: an async function whose docstring is the sentence it holds a plugin to."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from murder.errors import UpstreamFailure

LIMIT_S: Final = 60.0
HELD_S: Final = 0.5  # a turn of the event loop that is too long for all others

Check = Callable[[Any], Awaitable[None]]


class Broken(Exception):
    """The plugin does not keep to its contract; the text says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and what became of it; `problem` is empty where it holds."""

    promise: str
    problem: str = ""


def expect(actual: object, wanted: object, what: str) -> None:
    """Raise Broken unless the two are equal."""
    if actual != wanted:
        raise Broken(f"{what}: expected {wanted!r}, got {actual!r}")


def hold(true: object, what: str) -> None:
    """Raise Broken unless it is true."""
    if not true:
        raise Broken(what)


async def let_loop_turn(work: Iterable[Awaitable[object]]) -> None:
    """Raise Broken where all this together, side by side, held the event loop for long."""
    loop = asyncio.get_running_loop()
    asked = [asyncio.ensure_future(each) for each in work]
    longest_s = 0.0
    while not all(task.done() for task in asked):
        before = loop.time()
        await asyncio.sleep(0.005)
        longest_s = max(longest_s, loop.time() - before)
    await asyncio.gather(*asked)
    hold(longest_s < HELD_S, f"it held the loop for {longest_s:.2f} s; use a thread")


async def run_checks(checks: Sequence[Check], subject: Any) -> list[Finding]:
    """Run each on the subject (what it is depends on the kind). Raises UpstreamFailure where what the plugin asks (a
    directory, a database) is away: that says nothing of the plugin."""
    return [await _run(check, subject) for check in checks]


async def _run(check: Check, subject: Any) -> Finding:
    promise = " ".join((check.__doc__ or check.__name__).split())
    try:
        async with asyncio.timeout(LIMIT_S):
            await check(subject)
    except Broken as error:
        return Finding(promise, str(error))
    except TimeoutError:
        return Finding(promise, f"did not come to an end within {LIMIT_S:.0f} s")
    except UpstreamFailure:
        raise
    except Exception as error:  # noqa: BLE001 (a stranger's code is called)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
        return Finding(promise, f"{type(error).__name__}: {error} ({where})")
    return Finding(promise)
