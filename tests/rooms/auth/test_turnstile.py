"""Who is let through next: one address after the other."""

import asyncio

from murder.auth.turnstile import Turnstile


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_address_with_many_attempts_delays_another_by_one_turn() -> None:
    turnstile, seen = Turnstile(2), list[str]()

    async def come(key: str, *, first: bool = False) -> None:
        async with turnstile.turn(key, first=first):
            seen.append(key)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(come("a"))
        await asyncio.sleep(0)
        group.create_task(come("b"))
        group.create_task(come("c", first=True))
        group.create_task(come("b"))
    assert not turnstile.is_full
    assert len(seen) == 53
    assert seen.index("c") <= 4
    assert [number for number, key in enumerate(seen) if key == "b"][1] <= 9


async def test_who_gives_up_keeps_no_turn() -> None:
    turnstile, go = Turnstile(1), asyncio.Event()

    async def hold(key: str) -> None:
        async with turnstile.turn(key):
            await go.wait()

    tasks = [asyncio.create_task(hold(key)) for key in "abc"]
    await settle()
    tasks[1].cancel()
    await settle()
    go.set()
    await settle()
    assert tasks[2].done()
    assert not turnstile.is_full
    last = [asyncio.create_task(hold(key)) for key in "de"]
    go.clear()
    await settle()
    go.set()
    await asyncio.sleep(0)
    last[1].cancel()  # perhaps in the very moment of its turn
    await settle()
    assert not turnstile.is_full
