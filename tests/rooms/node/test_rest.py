"""Plugins of every role rest in the line of the server: those of a frontend, too, of which many ask for who logs in."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from murder.api.turns import _sleep, rest, set_rest
from murder.config import load_config
from murder.hooks import load_plugins
from murder.node.process.server import RoleServer
from tests.rooms.node import fake_roles


@pytest.mark.parametrize("role", ["frontend", "mupdate"])
async def test_one_of_many_that_rest_goes_on_in_each_turn(role: str, tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text('[node]\nname = "n.example.org"\ndata = "data"\n')
    (tmp_path / "data").mkdir()
    config, done = load_config(file), list[int]()
    set_rest(_sleep)
    target = f"{fake_roles.__name__}:FakeRole"
    server = RoleServer(config, load_plugins(config, ()), role, 0, [], target)
    await server.start()

    async def ask(number: int) -> None:
        await rest()
        done.append(number)

    asking = [asyncio.create_task(ask(number)) for number in range(5)]
    counts = [0]
    while len(done) < len(asking):
        await asyncio.sleep(0)
        counts.append(len(done))
    await asyncio.gather(*asking)
    await server.stop()
    set_rest(_sleep)
    assert all(after - before <= 1 for before, after in pairwise(counts))
