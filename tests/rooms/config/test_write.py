"""murder.toml.example, `config show`, and the code say the same."""

import dataclasses
import re
from pathlib import Path

import pytest

from murder.config.load import SECTIONS, load_config
from murder.config.sections import ServerConfig
from murder.config.write import format_config, format_example
from murder.hooks import bundled_settings
from tests.kit.sections import key_of

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLE = ROOT / "murder.toml.example"


def test_the_example_is_what_the_program_prints() -> None:
    written = EXAMPLE.read_text(encoding="utf-8")
    assert written == format_example(bundled_settings()), (
        "write it anew: python -m murder config example > murder.toml.example"
    )


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text(EXAMPLE.read_text(encoding="utf-8"))
    assert load_config(file).node.name == "be1.example.org"


def test_every_key_of_the_example_can_be_uncommented(tmp_path: Path) -> None:
    for name in ("ca.pem", "node.pem", "node.key"):
        (tmp_path / name).touch()
    text = re.sub(r"^#(?=\S)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    file = tmp_path / "murder.toml"
    file.write_text(text)
    config = load_config(file)
    assert config.server("be1.example.org").auth == "plain"
    assert config.mupdate.master is not None


@pytest.mark.parametrize("cls", [*SECTIONS.values(), ServerConfig, *bundled_settings().values()])
def test_every_key_says_what_it_means_and_has_its_unit(cls: type) -> None:
    for field in dataclasses.fields(cls):
        if cls is SECTIONS["plugins"] and field.name == "settings":
            continue
        assert field.metadata.get("doc", "").endswith((".", "?")), f"{cls.__name__}.{field.name}"
        if field.type in ("float", float) and field.name not in {"share", "weight"}:
            assert field.name.endswith("_s"), f"{cls.__name__}.{field.name} has no unit"


def test_what_is_in_effect_can_be_read_back_and_hides_secrets(tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text(
        '[node]\nname = "a"\ndata = "/d"\n[frontend]\nproxy_password = "hush"\n'
        '[servers."x y"]\nimap = 1\nproxy_password = "hush"'
    )
    shown = format_config(load_config(file))
    assert "hush" not in shown
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert key_of(load_config(again).server("x y"), "imap") == 1
