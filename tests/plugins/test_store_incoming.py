"""Messages on their way in: each is in a file, and little of it in memory."""

import tracemalloc
from pathlib import Path

from murder.kit.incoming import BUFFER_OCTETS
from plugins.store_spool.store import Settings, SpoolStore

MANY = 20


async def test_a_message_that_drips_in_takes_little_memory(tmp_path: Path) -> None:
    store = SpoolStore(Settings(inline_bytes=1000), tmp_path)
    await store.start()
    incomings = [store.incoming() for _ in range(MANY)]
    tracemalloc.start()
    try:
        for incoming in incomings:
            for _ in range(100):
                await incoming.write(b"x" * 5000)
        octets, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert octets < MANY * 2 * BUFFER_OCTETS
    for incoming in incomings:
        assert bytes(incoming.octets()) == b"x" * 500_000
        await incoming.close()
    await store.stop()
