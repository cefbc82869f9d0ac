"""Every command: its help with an example that would run, its --json with its keys, completion in three shells."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncclick as click
import pytest

from murder.admin.cli.program import murder
from murder.admin.manual.pages import TOPICS, page
from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.process import ROOT

WITHOUT_JSON = {
    "murder serve",  # runs
    "murder config example",  # prints a file
    "murder completion",
    "murder man",
    "murder system-unit",
    "murder metrics dashboard",  # prints a file, JSON as it is
    "murder metrics rules",
    "murder log fail2ban",
    "murder ctl top",  # a screen; `status --json` has the numbers
    "murder ctl raw",  # what the server says
    "murder ctl backup mailboxes",
    "murder ctl list dump",  # JSON lines as it is
}
MANUAL = "\n".join(
    [(ROOT / "README.md").read_text(encoding="utf-8"), *map(page, TOPICS.keys() - {"plugins"})]
)
Walked = tuple[str, click.Command, click.Context]


def walk(command: click.Command, name: str, above: click.Context | None = None) -> Iterator[Walked]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=above)
    yield name, command, context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            assert found is not None, f"{name} lists {word} and does not have it"
            yield from walk(found, f"{name} {word}", context)


COMMANDS = list(walk(murder, "murder"))
BY_NAME = {name: command for name, command, _ in COMMANDS}


def examples_of(command: click.Command) -> list[str]:
    """The lines of its help that show a command line."""
    blocks = re.findall(r"\x08\n(.*?)(?:\n\n|\Z)", command.help or "", re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if "murder " in line]


def meant(line: str) -> tuple[str, list[str]]:
    """The command that a line runs, and the words after it."""
    found = re.search(r"(?:^|[|&:] +|\$\()(?:\./)?murder (.*)", line)
    assert found, line
    words = shlex.split(re.split(r" +[|<>] ?| && ", found.group(1))[0], comments=True)
    name = "murder"
    while words and f"{name} {words[0]}" in BY_NAME:
        name = f"{name} {words.pop(0)}"
    return name, words


def check_example(line: str) -> str:
    """The command named; fails where its options or number of words are not the command's."""
    name, words = meant(line)
    command = BY_NAME[name]
    if isinstance(command, click.Group) and not command.invoke_without_command:
        assert not words, line
    options = {text: option for option in command.params for text in option.opts}
    options |= {text: option for option in command.params for text in option.secondary_opts}
    rest = []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        if word in ("--help", "-h"):
            continue
        option = options.get(word)
        assert option is not None, f"{line}: {name} has no {word}"
        if isinstance(option, click.Option) and not option.is_flag:
            assert words, line
            words.pop(0)
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    assert len(rest) >= sum(one.required for one in arguments), line
    assert len(rest) <= len(arguments) or any(one.nargs == -1 for one in arguments), line
    return name


@pytest.mark.parametrize("name", list(BY_NAME))
def test_help_has_an_example_that_is_right(name: str) -> None:
    command = BY_NAME[name]
    examples = examples_of(command)
    assert examples, f"{name} --help has no example"
    shown = [check_example(line) for line in examples]
    assert any(one.startswith(name) for one in shown), f"{name}: none of {examples} shows it"


@pytest.mark.parametrize("name", list(BY_NAME))
def test_help_fits_a_terminal_and_options_say_what_they_do(name: str) -> None:
    command = BY_NAME[name]
    text = command.get_help(click.Context(command, info_name=name, terminal_width=80))
    assert max(map(len, text.splitlines())) <= 80, text
    assert (command.help or "").strip().split("\n\n")[0].endswith("."), name
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and option.name != "version":
            assert option.help or option.show_default, f"{name}: {option.opts}"


@pytest.mark.parametrize(
    "name", [one for one, command in BY_NAME.items() if not isinstance(command, click.Group)]
)
def test_json_says_its_keys(name: str) -> None:
    options = [one for one in BY_NAME[name].params if "--json" in one.opts]
    assert bool(options) is (name not in WITHOUT_JSON), name
    for option in options:
        assert isinstance(option, click.Option)
        assert re.match(r"Print JSON, for programs: \w+.*\.", option.help or ""), name


def test_the_manual_names_commands_that_there_are() -> None:
    lines = re.findall(r"^(murder [a-z].*)$", MANUAL, re.MULTILINE)
    quoted = [
        one.replace(" …", " x") for one in re.findall(r"`(murder (?:ctl )?[a-z-]+[^`]*)`", MANUAL)
    ]
    named = {check_example(line) for line in [*lines, *quoted] if "." != line[-1] or "`" in line}
    assert {"murder ca issue", "murder ctl doctor", "murder system-unit"} <= named


def complete(archive: Path, shell: str, line: str) -> list[str]:
    """What the program itself offers, by the protocol of the scripts that it prints."""
    words = line.split(" ")
    environment = os.environ | {
        "_MURDER_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, archive], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(archive: Path, shell: str) -> None:
    def offers(line: str) -> str:
        return "\n".join(complete(archive, shell, line))

    assert "mailbox" in offers("murder ctl ma")
    assert "undelete" in offers("murder ctl mailbox un")
    assert "--parallel" in offers("murder ctl backend drain --p")
    assert "freeze" in offers("murder demo node f")


def test_bash_loads_what_completion_prints(archive: Path, tmp_path: Path) -> None:
    if missing := wanted("bash"):
        cannot_run(missing)
    program = tmp_path / "murder"
    program.symlink_to(archive)
    script = (
        f'PATH={tmp_path}:$PATH; eval "$(murder completion bash)"; COMP_WORDS=(murder ctl rebal); COMP_CWORD=2; '
        'COMP_LINE="murder ctl rebal"; COMP_POINT=16; _murder_completion murder; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout.strip() == "rebalance", done.stderr
