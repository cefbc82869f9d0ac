"""tests/README.md: its examples are tests, and it forgets no folder, no part of the kit and no variable."""

import asyncio
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kit import scene
from tests.kit.dialogue import Player, Streams
from tests.kit.process import ROOT
from tests.rooms.backend.server import running_backend

TESTS = ROOT / "tests"
README = (TESTS / "README.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_it_names_every_folder_and_every_part_of_the_kit() -> None:
    inside = [*TESTS.iterdir(), *(TESTS / "rooms").iterdir()]
    folders = {path.name for path in inside if path.is_dir()} - {"__pycache__"}
    modules = [path.relative_to(TESTS) for path in (TESTS / "kit").rglob("*.py")]
    parts = {str(path) for path in modules if path.parts[1] != "tested"}
    words = set(re.findall(r"`([^`\s]+)`", README))
    assert not {*folders, *parts} - words


def test_it_names_every_variable_that_makes_a_test_longer_or_the_same_again() -> None:
    asked = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(
            r'environ\.get\(\s*"(\w+(?:_S|_SEED|_STEPS|_SECONDS|_CUTS|_EXAMPLES|_USERS))"',
            path.read_text(encoding="utf-8"),
        )
    }
    assert not {name for name in asked if name not in README}


def test_files_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|sh))`", README)
    missing = [one for one in named if not (TESTS / one).exists()]
    assert not missing


async def test_the_transcript_is_one(tmp_path: Path) -> None:
    (text,) = examples("text")
    async with running_backend(tmp_path) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(text)


def named_test(text: str) -> Callable[..., Any]:
    module = types.ModuleType("example")
    exec(compile(text, "tests/README.md", "exec"), module.__dict__)
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    return test  # type: ignore[no-any-return] # by its name


def test_the_cluster_is_one(tmp_path: Path) -> None:
    scene.run(named_test(examples("python")[0])(tmp_path))


def test_the_fault_is_one(archive: Path) -> None:
    named_test(examples("python")[1])(archive)
