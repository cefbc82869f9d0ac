"""Configuration files for nodes under test."""

import json
from collections.abc import Mapping
from pathlib import Path

Sections = Mapping[str, Mapping[str, object]]


def to_toml(sections: Sections) -> str:
    """Section → key → value as TOML. The sections' names are written as they are: `servers."be1.test"`, `plugins.auth_file`.
    A value of None is left out."""
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in keys.items() if value is not None]
    return "".join(line + "\n" for line in lines)


def write_config(file: Path, sections: Sections, more: str = "") -> Path:
    """Write it, readable to its owner only, with more lines behind. Returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(to_toml(sections) + more, encoding="utf-8")
    return file


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
