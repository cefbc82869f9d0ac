"""What nodes tell of themselves, and what is made of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from murder.config import load_config
from murder.operate import nodes
from murder.operate.nodes import Answer, ask_all, clock_off, problems_of
from murder.operate.reach import Reach


def reach(folder: Path, *places: str) -> Reach:
    file = folder / "murder.toml"
    file.write_text(f'[node]\nname = "op"\ndata = "{folder}"\n[operator]\nnodes = {list(places)}\n')
    return Reach(load_config(file), lambda user: "")


@pytest.mark.parametrize(
    ("told", "off"), [(100.0, 0), (107.0, 0), (110.0, 0), (94.0, -6.0), (130.0, 20.0)]
)
def test_a_clock_is_off_by_what_asking_and_waiting_cannot_explain(told: float, off: float) -> None:
    assert clock_off(told, 100.0, 110.0) == off


def test_a_node_that_hangs_says_nothing_of_the_others_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(_reach: Reach, place: str, _request: Answer) -> AsyncIterator[Answer]:
        if place == "hangs.example.org":
            await asyncio.Event().wait()
        yield {"node": place, "role": "backend", "now": time.time()}

    monkeypatch.setattr(nodes, "ask", ask)
    monkeypatch.setattr(nodes, "TIMEOUT_S", 0.05)
    told = asyncio.run(ask_all(reach(tmp_path, "hangs.example.org", "be1.example.org"), {}))
    assert [bool(node.problem) for node in told] == [True, False]
    assert problems_of(told[1].answers, time.time() + 60) == []
    (problem,) = problems_of([{**told[1].answers[0], "clock_off_s": -7.4}], time.time())
    assert "differs from this host's by -7 s" in problem.what
