"""Writes murder.toml: the example with every key and what it means, and a configuration as it is in effect."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from murder.config.expiry import ExpiryRule
from murder.config.load import NAMED, SECTIONS, header_of
from murder.config.sections import Config, ServerConfig
from murder.config.sieve import ImapScriptRule, ProgramConfig
from murder.config.value import Endpoint

MASK: Final = "***"
SIEVE_EXAMPLES: Final[Mapping[str, type]] = {
    '[sieve.programs."learn-spam"]': ProgramConfig,
    '[sieve.imap."learn-spam"]': ImapScriptRule,
}
WIDTH: Final = 98
INTRO: Final = """\
# murder.toml: every key with its default and what it means. Copy what you change; a line that starts with
# "#" and no space is a key at its default (or an example of one). Units end the names: _s is seconds.
# Passwords may come from files: KEY_file = "path" in place of KEY. Relative paths count from this file's folder.
# `murder config check` tells what is wrong, `murder config show` what is in effect."""


def format_example(plugin_settings: Mapping[str, type]) -> str:
    """The whole murder.toml.example. `plugin_settings` has the Settings class of each plugin that has one."""
    blocks = [INTRO]
    for name, cls in SECTIONS.items():
        blocks.append("\n".join(_example_section(f"[{header_of(name)}]", cls)))
        if name == "auth":
            header = '[servers."be1.example.org"]'
            blocks.append("\n".join(_example_section(header, ServerConfig, commented=True)))
        if name == "backend":
            header = '[expiry."trash"]'
            blocks.append("\n".join(_example_section(header, ExpiryRule, commented=True)))
        if name == "sieve":
            for header, named in SIEVE_EXAMPLES.items():
                blocks.append("\n".join(_example_section(header, named, commented=True)))
    for name, cls in plugin_settings.items():
        blocks.append("\n".join(_example_section(f"[plugins.{name}]", cls)))
    return "\n\n".join(blocks) + "\n"


def _example_section(header: str, cls: type, *, commented: bool = False) -> Iterator[str]:
    yield from _wrapped((cls.__doc__ or "").strip())
    yield f"#{header}" if commented else header
    for field in dataclasses.fields(cls):
        if "doc" not in field.metadata:
            continue
        yield from _wrapped(field.metadata["doc"])
        example = field.metadata.get("example")
        value = example or format_value(default_of(field))
        mark = "" if field.metadata.get("required") and not commented else "#"
        yield f"{mark}{field.name} = {value}"


def _wrapped(text: str) -> Iterator[str]:
    line = "#"
    for word in " ".join(text.split()).split(" "):
        if len(line) + 1 + len(word) > WIDTH:
            yield line
            line = "#"
        line += " " + word
    yield line


def default_of(field: "dataclasses.Field[Any]") -> object:
    """The default of a field, whichever way it is declared; None where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def format_config(config: Config, plugin_settings: Mapping[str, object] | None = None) -> str:
    """All that is in effect, as TOML; secrets are masked. `plugin_settings`: the made Settings of loaded plugins."""
    blocks = [f"# {config.file}"]
    for name in SECTIONS:
        blocks.append("\n".join(_effective_section(f"[{header_of(name)}]", getattr(config, name))))
    for section in NAMED:
        for name, named in getattr(config, section).items():
            blocks.append(
                "\n".join(_effective_section(f"[{header_of(section)}.{_quoted(name)}]", named))
            )
    for name, settings in (plugin_settings or {}).items():
        if dataclasses.is_dataclass(settings):
            blocks.append("\n".join(_effective_section(f"[plugins.{name}]", settings)))
    return "\n\n".join(blocks) + "\n"


def _effective_section(header: str, section: Any) -> Iterator[str]:
    yield header
    for name, value in values_of(section).items():
        yield f"#{name} =" if value is None else f"{name} = {format_value(value)}"


def values_of(section: Any) -> dict[str, object]:
    """A section's keys and values, secrets masked, in order."""
    values: dict[str, object] = {}
    for field in dataclasses.fields(section):
        if "doc" in field.metadata:
            value = getattr(section, field.name)
            if isinstance(value, Endpoint) and value.others:
                value = [dataclasses.replace(value, others=()), *value.others]
            values[field.name] = MASK if field.metadata.get("secret") and value else value
    return values


def format_value(value: object) -> str:
    """A value as TOML writes it; None (no value) as an empty text."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_quoted(key)} = {format_value(item)}" for key, item in value.items())
        return "{" + pairs + "}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """A basic string of TOML; JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def plain(value: object) -> object:
    """A value as JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
