"""Secrets that everybody on this host can read. They keep no node from running (containers get theirs so), and are told by
`murder config check`."""

import dataclasses
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from murder.config import Problem
from murder.config.load import FILE_SUFFIX, NAMED, SECTIONS, header_of, read_table


def exposed_secrets(file: Path, settings: Mapping[str, type]) -> list[Problem]:
    """Of a configuration, and of plugins by their names and Settings: the files of its secrets, and itself where secrets
    stand in it. Raises ConfigError."""
    problems = []
    for key, secret, value in _texts(read_table(file), "", settings):
        path = file if secret else file.parent / Path(value).expanduser()
        if value and _is_for_everybody(path):
            what = "has a secret, and" if secret else "the secret"
            text = f"{path}: {what} can be read by everybody; chmod 600 it"
            problems.append(Problem(file, key, text))
    return problems


def _texts(
    table: Mapping[str, object], section: str, settings: Mapping[str, type]
) -> Iterator[tuple[str, bool, str]]:
    """All keys that are of secrets, whether that is the secret itself, and what stands there."""
    names = _secrets_of(section, settings)
    for name, value in table.items():
        dotted = f"{section}.{name}" if section else name
        if isinstance(value, dict):
            yield from _texts(value, dotted, settings)
        elif isinstance(value, str):
            if name in names:
                yield dotted, True, value
            elif name.endswith(FILE_SUFFIX) and name.removesuffix(FILE_SUFFIX) in names:
                yield dotted, False, value


def _secrets_of(section: str, settings: Mapping[str, type]) -> frozenset[str]:
    """The names of those in a section, by what stands in its brackets."""
    classes = {header_of(name): cls for name, cls in SECTIONS.items()}
    classes |= {f"plugins.{name}": cls for name, cls in settings.items()}
    several = {header_of(name): cls for name, cls in NAMED.items()}
    outer = next((name for name in several if section.startswith(f"{name}.")), "")
    cls = several[outer] if outer else classes.get(section)
    if cls is None or not dataclasses.is_dataclass(cls):
        return frozenset()
    return frozenset(
        field.name for field in dataclasses.fields(cls) if field.metadata.get("secret")
    )


def _is_for_everybody(path: Path) -> bool:
    """Whether everybody may read it, and enter each folder on the way to it."""
    try:
        real = path.resolve(strict=True)
        can_enter = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return can_enter and bool(real.stat().st_mode & stat.S_IROTH)
    except (OSError, RuntimeError):  # the latter for a ring of links
        return False  # whoever reads it says that
