"""A test may be a coroutine: tests/conftest.py runs it here, on the event loop of production and within bounds."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import uvloop

T = TypeVar("T")

LIMIT_S: Final = 120.0


def run(scene: Coroutine[Any, Any, T], limit_s: float = LIMIT_S) -> T:
    """Its result. TimeoutError where it hangs. For a coroutine test nothing needs to call this."""

    async def bounded() -> T:
        async with asyncio.timeout(limit_s):
            return await scene

    return uvloop.run(bounded())
