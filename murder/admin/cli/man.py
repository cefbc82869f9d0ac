"""`murder man`: manual pages in the language of man(7), made from what --help says and from the keys of murder.toml.

Paragraphs of a help text are filled; those behind a `\\b` stay as they are. What is in backquotes is bold.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import asyncclick as click

from murder import __version__
from murder.config.load import SECTIONS, header_of
from murder.config.sections import ServerConfig
from murder.config.write import default_of, format_value
from murder.hooks import bundled_settings

INTRO: Final = """\
One file has all of murder: a frontend, a backend and the MUPDATE master of a Cyrus Murder, which makes one mail store out
of many servers, and the commands that an operator gives it. `murder help` prints its manual: how to install it, what to do
every day and when something is wrong. Each command has --help, as here."""
CTL_INTRO: Final = """\
It speaks to the nodes over TLS, with an operator's certificate, and learns from the master which ones there are."""
TOML_INTRO: Final = """\
The configuration of a node, in TOML (https://toml.io). Sections and their keys are below, each with its default. Passwords
may come from files: `KEY_file = "path"` in place of `KEY`. Relative paths count from the folder of the file. Units end the
names: _s is seconds. `murder config check` tells what is wrong with a file, `murder config show` what is in effect, `murder
reload` has the running node read it again."""
FILES: Final = (
    ("/etc/murder/murder.toml", "The node's configuration: murder.toml(5)."),
    ("/var/lib/murder", "Mail, lists and what else a node keeps: its `node.data`."),
    ("/var/cache/murder", "Where the program is unpacked under systemd; else in the user's cache."),
)
ENVIRONMENT: Final = (
    ("MURDER_CONFIG", "In place of /etc/murder/murder.toml."),
    ("MURDER_CACHE", "The folder to unpack the program in."),
    ("NO_COLOR", "No colours, whatever its value."),
)
EXITS: Final = (
    ("0", "Done."),
    ("1", "Refused, or failed."),
    ("2", "The command line or the configuration is wrong."),
    ("3", "A server could not be reached."),
)


@click.command()
@click.argument("page", type=click.Choice(["murder.1", "murder-ctl.1", "murder.toml.5"]))
@click.option(
    "--date", default="", metavar="YYYY-MM-DD", help="What it is dated.  [default: today]"
)
def man(page: str, date: str) -> None:
    """Print a manual page for man(1), made of what --help says and of the keys of murder.toml.

    \b
    murder man murder.1 > /usr/local/share/man/man1/murder.1
    murder man murder-ctl.1 > /usr/local/share/man/man1/murder-ctl.1
    murder man murder.toml.5 > /usr/local/share/man/man5/murder.toml.5
    """
    click.echo(format_page(page, date or datetime.now(UTC).date().isoformat()), nl=False)


def format_page(page: str, date: str) -> str:
    """The text of one, in man(7)."""
    name, _, section = page.rpartition(".")
    lines = [f'.TH "{escaped(name.upper())}" "{section}" "{date}" "murder {__version__}" "murder"']
    return "\n".join([*lines, *PAGES[page]()]) + "\n"


def _murder() -> Iterator[str]:
    from murder.admin.cli.program import murder

    context = click.Context(murder, info_name="murder")
    yield from _head("murder", "a Cyrus Murder in one file: IMAP, POP3, LMTP, ManageSieve")
    yield from (".SH SYNOPSIS", r".B murder", r".I COMMAND", r"[\fIOPTIONS\fR]")
    yield from (".SH DESCRIPTION", *_filled(INTRO))
    yield ".SH COMMANDS"
    for name in murder.list_commands(context):
        command = murder.get_command(context, name)
        if name == "ctl":
            yield from (
                ".SS murder ctl",
                "Inspect and change a murder: see",
                ".BR murder\\-ctl (1).",
            )
        elif command is not None:
            yield from _command(command, context, name)
    yield from _tail("murder-ctl(1)", "murder.toml(5)")


def _ctl() -> Iterator[str]:
    from murder.admin.cli.program import murder

    above = click.Context(murder, info_name="murder")
    ctl = murder.get_command(above, "ctl")
    assert isinstance(ctl, click.Group)
    context = click.Context(ctl, info_name="ctl", parent=above)
    yield from _head("murder-ctl", "inspect and change a murder")
    yield from (".SH SYNOPSIS", r".B murder ctl", r".I COMMAND", r"[\fIOPTIONS\fR]")
    yield from (".SH DESCRIPTION", *_help(ctl), ".PP", *_filled(CTL_INTRO))
    yield from (".SH COMMANDS",)
    for name in ctl.list_commands(context):
        command = ctl.get_command(context, name)
        if command is not None:
            yield from _command(command, context, name)
    yield from _tail("murder(1)", "murder.toml(5)")


def _toml() -> Iterator[str]:
    yield from _head("murder.toml", "the configuration of a node of murder")
    yield from (".SH DESCRIPTION", *_filled(TOML_INTRO))
    for name, cls in SECTIONS.items():
        yield from _section(f"[{header_of(name)}]", cls)
        if name == "auth":
            yield from _section('[servers."NAME"]', ServerConfig)
    for name, cls in bundled_settings().items():
        yield from _section(f"[plugins.{name}]", cls)
    yield from (".SH FILES", *_listed(FILES[:1]))
    yield from (".SH SEE ALSO", ".BR murder (1),", ".BR murder\\-ctl (1)")


PAGES: Final[Mapping[str, Callable[[], Iterator[str]]]] = MappingProxyType(
    {"murder.1": _murder, "murder-ctl.1": _ctl, "murder.toml.5": _toml}
)


def _head(name: str, what: str) -> Iterator[str]:
    yield from (".SH NAME", f"{escaped(name)} \\- {escaped(what)}")


def _tail(*others: str) -> Iterator[str]:
    yield from (".SH FILES", *_listed(FILES))
    yield from (".SH ENVIRONMENT", *_listed(ENVIRONMENT))
    yield from (".SH EXIT STATUS", *_listed(EXITS))
    pages = [re.sub(r"(.*)(\(\d\))", r".BR \1 \2", escaped(page)) for page in others]
    yield from (".SH SEE ALSO", ",\n".join(pages))


def _listed(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, text in rows:
        yield from (".TP", f".B {escaped(name)}", *_filled(text))


def _command(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    """A command with its options, or all of a group, each below a heading of its own."""
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        yield from (f'.SS "{escaped(context.command_path)}"', *_help(command))
        for inner_name in command.list_commands(context):
            inner = command.get_command(context, inner_name)
            if inner is not None:
                yield from _command(inner, context, inner_name)
        return
    words = [context.command_path, *command.collect_usage_pieces(context)]
    yield f'.SS "{escaped(" ".join(words))}"'
    yield from _help(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            yield from (".TP", f".B {escaped(record[0])}", *_filled(record[1]))


def _help(command: click.Command) -> Iterator[str]:
    """The paragraphs of a help text."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", (command.help or "").strip())):
        if number:
            yield ".PP"
        if paragraph.lstrip(" ").startswith("\b"):
            lines = [line.strip() for line in paragraph.strip(" \b\n").split("\n")]
            yield from (".nf", ".RS 4", *map(escaped, lines), ".RE", ".fi")
        else:
            yield from _filled(paragraph)


def _section(header: str, cls: type) -> Iterator[str]:
    """A section of murder.toml: its keys with defaults."""
    yield f'.SH "{escaped(header)}"'
    yield from _filled(cls.__doc__ or "")
    for field in dataclasses.fields(cls):
        if "doc" not in field.metadata:
            continue
        yield ".TP"
        if field.metadata.get("required"):
            yield f".B {escaped(field.name)}"
            yield from _filled(field.metadata["doc"] + " It has no default.")
        else:
            value = field.metadata.get("example") or format_value(default_of(field))
            yield f'.BR {escaped(field.name)} " = {escaped(value).replace(chr(34), chr(92) + "(dq")}"'
            yield from _filled(field.metadata["doc"])


def _filled(text: str) -> Iterator[str]:
    """A paragraph; sentences begin on lines of their own, as man(7) wants it."""
    words = " ".join(text.split())
    for sentence in re.split(r"(?<=[a-z)`][.:;]) (?=[A-Z`])", words):
        if sentence:
            yield re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped(sentence))


def escaped(text: str) -> str:
    """A line of text as it is: no escapes and no requests of its own; hyphens can be copied as they are printed."""
    line = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + line if line.startswith((".", "'")) else line
