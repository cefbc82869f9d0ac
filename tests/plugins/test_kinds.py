"""A kind of plugin is one value: a file with it and its entry in the table, in a copy of murder, and everything knows it."""

import json
import re
from pathlib import Path

import pytest

from murder.api.hookspecs import HookSpecs
from murder.api.kinds.table import KINDS
from tests.kit.checkout import copy_sources, replace_in, run_in

ROOT = Path(__file__).parents[2]
README = ROOT / "plugins" / "README.md"
TOY = '''"""Plugins that greet."""

from murder.api.contract.check import hold
from murder.api.hookspecs import hookspec
from murder.api.kinds.kind import Kind

class Specs:
    @hookspec(firstresult=True)
    def greet(self, settings, name):
        """A greeting."""

async def names_whom_it_greets(greet):
    """A greeting has the name."""
    hold("anna" in greet(name="anna"), "it has not")

TEMPLATE = """
from murder.api import hookimpl

@hookimpl
def greet(name):
    return f"hello {name}, @NAME@ here"
"""
GREETING = Kind("greeting", "greet", "Greets.", (names_whom_it_greets,), TEMPLATE, specs=Specs)
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of murder with the toy."""
    home = copy_sources(tmp_path_factory.mktemp("copy"))
    kinds = home / "murder" / "api" / "kinds"
    (kinds / "greeting.py").write_text(TOY)
    first = "from murder.api.kinds.auth import AUTH\n"
    replace_in(
        kinds / "table.py", first, f"{first}from murder.api.kinds.greeting import GREETING\n"
    )
    replace_in(kinds / "table.py", "(AUTH, ", "(GREETING, AUTH, ")
    return home


def run(copy: Path, *arguments: str) -> str:
    return run_in(copy, "-m", "murder", *arguments)


def test_a_kind_is_one_value(copy: Path, tmp_path: Path) -> None:
    run(copy, "plugin", "new", "greeting", "mine", "--dir", str(tmp_path))
    file = tmp_path / "greeting_mine.py"
    assert 'use = ["greeting_mine", …]' in file.read_text()
    said = run(copy, "plugin", "check", str(file))
    assert "A greeting has the name." in said
    assert "1 of 1 checks passed" in said
    config = tmp_path / "murder.toml"
    config.write_text(
        '[node]\nname = "a"\ndata = "data"\n[plugins]\npath = ["."]\nuse = ["greeting_mine"]\n'
    )
    rows = json.loads(run(copy, "plugin", "list", "--config", str(config), "--json"))
    (row,) = [row for row in rows if row["name"] == "greeting_mine"]
    assert (row["kinds"], row["used"], row["about"]) == ("greeting", "used", "Greets.")


def test_every_kind_and_every_hook_stands_in_the_readme() -> None:
    text = README.read_text("utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| `(\w+)\(", text, re.M))
    assert {kind.name: kind.hook for kind in KINDS} == {
        name: hook for name, hook in rows.items() if name != "any"
    }
    hooks = {name for name in vars(HookSpecs) if not name.startswith("_")}
    assert hooks == set(re.findall(r"^\| \w* ?\| `(\w+)\(", text, re.M))
    choice = re.search(r"murder plugin new .*# (.*)", text)
    assert choice is not None
    assert choice[1].split(" | ") == [kind.name for kind in KINDS]
