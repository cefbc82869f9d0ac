"""Reads murder.toml into the sections, and says all that is wrong with it at once.

Looks at nothing but the file and the secrets it points to; whether ports are free and names resolve is
`murder config check`'s question.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import tomli

from murder.config.auth import AuthConfig
from murder.config.dns import DnsConfig
from murder.config.expiry import ExpiryRule
from murder.config.monitor import LogConfig, MetricsConfig, TracesConfig, WebConfig
from murder.config.mupdate import MupdateConfig
from murder.config.problem import ConfigError, Problem
from murder.config.sections import (
    BackendConfig,
    Config,
    FrontendConfig,
    MultiplexorConfig,
    NamespaceConfig,
    NodeConfig,
    OperatorConfig,
    PluginsConfig,
    ServerConfig,
    SubmissionConfig,
    TlsConfig,
)
from murder.config.sieve import ImapScriptRule, ProgramConfig, SieveConfig
from murder.config.value import Endpoint, Network, parse_endpoint, parse_network
from murder.errors import unreadable
from murder.model.acl import parse_default_acl

SECTIONS: Final[Mapping[str, type]] = {
    "node": NodeConfig,
    "tls": TlsConfig,
    "mupdate": MupdateConfig,
    "frontend": FrontendConfig,
    "multiplexor": MultiplexorConfig,
    "backend": BackendConfig,
    "submission": SubmissionConfig,
    "sieve": SieveConfig,
    "namespace": NamespaceConfig,
    "auth": AuthConfig,
    "operator": OperatorConfig,
    "dns": DnsConfig,
    "plugins": PluginsConfig,
    "log": LogConfig,
    "metrics": MetricsConfig,
    "traces": TracesConfig,
    "web": WebConfig,
}
NAMED: Final[Mapping[str, type]] = {
    "servers": ServerConfig,
    "expiry": ExpiryRule,
    "programs": ProgramConfig,
    "imap": ImapScriptRule,
}  # as many as there are names
INNER: Final[Mapping[str, str]] = {  # sections that stand in another
    "submission": "backend",
    "multiplexor": "frontend",
    "programs": "sieve",
    "imap": "sieve",
}
UNIFIED: Final = "unified"
ROLES: Final = ("mupdate", "frontend", "backend", UNIFIED)
FILE_SUFFIX: Final = "_file"

Table = Mapping[str, object]


def parts_of(roles: Iterable[str]) -> tuple[str, ...]:
    """What roles consist of, as certificates, plugins and operators know them: a unified node is frontend and backend."""
    by_role = ((role,) if role != UNIFIED else ("frontend", "backend") for role in roles)
    return tuple(dict.fromkeys(part for parts in by_role for part in parts))


def processes_of(config: Config, role: str) -> int:
    """How many a role runs in: a frontend of several workers has one more, which no client comes to; a unified node
    too."""
    count = config.workers_of(role)
    return count + 1 if count > 1 and "frontend" in parts_of([role]) else count


class _Unfit(Exception):
    """A value is not what its key takes; the text goes into a Problem."""


def load_config(file: Path) -> Config:
    """Read the file. Raises ConfigError with everything that is wrong with it."""
    return config_from(read_table(file), file)


def read_table(file: Path) -> Table:
    """The file as TOML gives it. Raises ConfigError where it cannot be read or is no TOML."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        advice = "no such file; name it with --config, or start from `murder config example`"
        raise ConfigError([Problem(file, "", advice)]) from None
    except OSError as error:
        raise ConfigError([Problem(file, "", unreadable(file, error))]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(file, "", f"cannot be read: {error}")]) from None
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        quotes = "; a text stands in quotes" if "Invalid value" in str(error) else ""
        raise ConfigError([Problem(file, "", f"is not TOML: {error}{quotes}")]) from None


def config_from(table: Table, file: Path) -> Config:
    """Make a Config of a TOML table; `file` is for messages and for relative paths."""
    reader = _Reader(file)
    sections: dict[str, Any] = {}
    for name, value in table.items():
        if name in NAMED and name not in INNER:
            sections[name] = reader.named(name, NAMED[name], value)
        elif name in SECTIONS and name not in INNER:
            own, inner = _taken_apart(name, value)
            sections[name] = reader.section(name, SECTIONS[name], own)
            for key, table_of_it in inner.items():
                header = header_of(key)
                if key in NAMED:
                    sections[key] = reader.named(header, NAMED[key], table_of_it)
                else:
                    sections[key] = reader.section(header, SECTIONS[key], table_of_it)
        else:
            known = [header_of(section) for section in (*SECTIONS, *NAMED)]
            reader.problem(name, unknown("section", name, known))
    if "node" not in table:
        reader.problem("node", "missing: every node needs [node] with `name` and `data`")
    reader.cross_check(sections)
    if reader.problems:
        raise ConfigError(reader.problems)
    return Config(file=file, **sections)


def header_of(section: str) -> str:
    """What stands in the brackets of a section."""
    return f"{INNER[section]}.{section}" if section in INNER else section


def _taken_apart(name: str, value: object) -> tuple[object, Mapping[str, object]]:
    """A section's table without the sections that stand in it, and these."""
    if not isinstance(value, dict):
        return value, {}
    inner = {key: value[key] for key, outer in INNER.items() if outer == name and key in value}
    return {key: inner_value for key, inner_value in value.items() if key not in inner}, inner


def settings_from(cls: type, table: Table, file: Path, prefix: str) -> Any:
    """Fill a plugin's `Settings` dataclass from its table. Raises ConfigError."""
    reader = _Reader(file)
    made = reader.section(prefix, cls, table)
    if reader.problems:
        raise ConfigError(reader.problems)
    return made


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The words for a name that does not exist, with the nearest that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(names)}"
    return f"unknown {what}; {hint}"


class _Reader:
    """Turns tables into dataclasses and gathers what is wrong on the way."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def problem(self, dotted: str, text: str) -> None:
        self.problems.append(Problem(self.file, dotted, text))

    def named(self, section: str, cls: type, value: object) -> Mapping[str, Any]:
        """Tables of one kind, each with a name of the operator's."""
        if not isinstance(value, dict):
            self.problem(section, f'expected tables [{section}."NAME"]')
            return {}
        return {
            name: self.section(f'{section}."{name}"', cls, table) for name, table in value.items()
        }

    def section(self, prefix: str, cls: type, table: object) -> Any:
        """One dataclass of one table; None where that failed (a Problem tells)."""
        if not isinstance(table, dict):
            self.problem(prefix, f"expected a table [{prefix}], not {_shown(table)}")
            return None
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        nested = fields.pop("settings", None) if cls is PluginsConfig else None
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, value in table.items():
            dotted = f"{prefix}.{name}"
            stem = name.removesuffix(FILE_SUFFIX)
            if nested is not None and isinstance(value, dict) and name not in fields:
                values.setdefault("settings", {})[name] = value
            elif name in fields:
                self._value(values, fields[name], hints[name], value, dotted)
            elif stem != name and stem in fields and fields[stem].metadata.get("secret"):
                self._secret(values, stem, value, dotted, doubled=stem in table)
            else:
                self.problem(dotted, unknown("key", name, fields))
        for name, field in fields.items():
            if field.metadata.get("required") and name not in table:
                self.problem(f"{prefix}.{name}", f"missing. {field.metadata['doc']}")
        return cls(**values) if len(self.problems) == before else None

    def _value(
        self,
        values: dict[str, Any],
        field: "dataclasses.Field[Any]",
        hint: Any,
        value: object,
        dotted: str,
    ) -> None:
        try:
            made = self._convert(hint, value, field.metadata)
        except _Unfit as error:
            self.problem(dotted, str(error))
            return
        least = field.metadata.get("least")
        if least is not None and made is not None and made < least:
            self.problem(dotted, f"must be at least {least}, not {made}")
        most = field.metadata.get("most")
        if most is not None and made is not None and made > most:
            self.problem(dotted, f"must be at most {most}, not {made}")
            return
        values[field.name] = made

    def _secret(
        self, values: dict[str, Any], name: str, value: object, dotted: str, *, doubled: bool
    ) -> None:
        if doubled:
            self.problem(dotted, f"give either `{name}` or `{name}{FILE_SUFFIX}`, not both")
            return
        try:
            path = self._path(value)
            values[name] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except _Unfit as error:
            self.problem(dotted, str(error))
        except OSError as error:
            self.problem(dotted, f"{path}: the secret {unreadable(path, error)}")
        except UnicodeDecodeError as error:
            self.problem(dotted, f"{path}: the secret cannot be read: {error}")

    def _path(self, value: object) -> Path:
        if not isinstance(value, str) or not value:
            raise _Unfit(f"expected a path in quotes, not {_shown(value)}")
        return self.file.absolute().parent / Path(value).expanduser()

    def _convert(self, hint: Any, value: object, metadata: Mapping[str, Any]) -> Any:
        """The value as the type hint wants it. Raises _Unfit."""
        origin = typing.get_origin(hint)
        if origin is types.UnionType or origin is typing.Union:
            return self._convert_union(typing.get_args(hint), value, metadata)
        if origin is tuple:
            if not isinstance(value, list):
                raise _Unfit(f"expected a list in square brackets, not {_shown(value)}")
            inner = typing.get_args(hint)[0]
            return tuple(self._convert(inner, item, metadata) for item in value)
        if metadata.get("by_name") and origin is Mapping:
            if not isinstance(value, dict):
                raise _Unfit(f"expected a table, not {_shown(value)}")
            inner, alone = typing.get_args(hint)[1], {**metadata, "by_name": False}
            return {name: self._convert(inner, item, alone) for name, item in value.items()}
        if origin is Literal:
            allowed = typing.get_args(hint)
            if value not in allowed:
                choices = ", ".join(f'"{choice}"' for choice in allowed)
                raise _Unfit(f"expected one of {choices}, not {_shown(value)}")
            return value
        return self._convert_plain(hint, value, metadata)

    def _convert_union(
        self, members: tuple[Any, ...], value: object, metadata: Mapping[str, Any]
    ) -> Any:
        if members == typing.get_args(Network):
            return _parsed(parse_network, value)
        rest = [member for member in members if member is not types.NoneType]
        if value == "" and len(rest) < len(members):
            return None
        return self._convert(rest[0], value, metadata)

    def _convert_plain(self, hint: Any, value: object, metadata: Mapping[str, Any]) -> Any:
        if hint is Path:
            return self._path(value)
        if hint is Endpoint:
            port = metadata.get("default_port")
            if isinstance(value, list) and value and metadata.get("several"):
                first, *others = (self._convert_plain(hint, item, metadata) for item in value)
                return dataclasses.replace(first, others=tuple(others))
            return _parsed(lambda text: parse_endpoint(text, port), value)
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        names = {str: "text in quotes", int: "a whole number", float: "a number"}
        if hint is bool:
            if not isinstance(value, bool):
                raise _Unfit(f"expected true or false, not {_shown(value)}")
            return value
        if hint not in names:  # a mapping or the like in a plugin's Settings: its own business
            return value
        if not isinstance(value, hint) or isinstance(value, bool):
            raise _Unfit(f"expected {names[hint]}, not {_shown(value)}")
        return value

    def cross_check(self, sections: Mapping[str, Any]) -> None:
        """What no key tells alone."""
        node, tls = sections.get("node"), sections.get("tls")
        if node is not None:
            for role in node.roles:
                if role not in ROLES:
                    self.problem("node.roles", f"{role!r}: {unknown('role', role, ROLES)}")
        if (backend := sections.get("backend")) is not None:
            try:
                parse_default_acl(backend.default_acl)
            except ValueError as error:
                self.problem("backend.default_acl", str(error))
        if (operator := sections.get("operator")) is not None:
            for place in operator.nodes:
                self._check_place(place, node)
        submission = sections.get("submission")
        if submission is not None and submission.redirect_sender == "srs":
            for key in ("srs_domain", "srs_secret"):
                if not getattr(submission, key):
                    self.problem(f"backend.submission.{key}", "missing: `srs` needs it")
        if tls is not None:
            for key_name, other in (("certificate", "key"), ("public_certificate", "public_key")):
                if (getattr(tls, key_name) is None) != (getattr(tls, other) is None):
                    self.problem(
                        f"tls.{key_name}", f"`{key_name}` and `{other}` must be given together"
                    )
            if tls.certificate is not None and tls.ca is None:
                self.problem("tls.ca", "missing: with `certificate` the nodes' `ca` is needed too")

    def _check_place(self, place: str, node: NodeConfig | None) -> None:
        """Of a node that operators ask: a host, or a folder that is written as one. A folder that is merely called as a host
        is nobody's data."""
        if place.startswith(("/", ".")):
            return
        host, colon, port = place.rpartition(":")
        folder = self.file.absolute().parent / place
        is_data = (folder / "control").is_dir() or (node is not None and folder == node.data)
        if "/" in place or is_data:
            self.problem(
                "operator.nodes", f'"{place}" is a folder: write "./{place}", or the whole path'
            )
        elif colon and "]" not in port and not (host and port.isdecimal() and int(port) < 65536):
            self.problem("operator.nodes", f'"{place}": expected HOST, HOST:PORT or a folder')


def _parsed(parse: Any, value: object) -> Any:
    if not isinstance(value, str):
        raise _Unfit(f"expected text in quotes, not {_shown(value)}")
    try:
        return parse(value)
    except ValueError as error:
        raise _Unfit(str(error)) from None


def _shown(value: object) -> str:
    """A value as an operator wrote it, short."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    kind = kinds.get(type(value), "a table" if isinstance(value, dict) else type(value).__name__)
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return f"{kind} ({text if len(text) <= 40 else text[:37] + '...'})"
