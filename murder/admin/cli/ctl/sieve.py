"""`murder ctl sieve`: users' mail filters, looked at, changed and tried."""

from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.policy import compat32
from email.utils import parseaddr
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import count, plain
from murder.admin.operate.filtering import Offline, Online, Trial, run_trial
from murder.admin.operate.reach import Reach
from murder.admin.operate.routes import route
from murder.admin.operate.scripts import ScriptFault, UserScripts, WrongScript, scripts_of
from murder.roles.backend.scripts.check import Compiler
from murder.sieve import (
    Action,
    BadScript,
    Discard,
    Envelope,
    FileInto,
    Keep,
    Limits,
    Notify,
    Pipe,
    Problem,
    Redirect,
    Reject,
    Remember,
    Reply,
    Script,
    Target,
)

FILE: Final = click.Path(path_type=Path, allow_dash=True)
MAX_SCRIPT: Final = Limits().script_octets
TRIED: Final = (
    "script, server, actions (a list of action, line, include and what it is about), steps (a list of line, include, "
    "word, outcome), asked (a list of question, answer, assumed), notes, failure"
)


@click.group(cls=Group)
def sieve() -> None:
    """Users' mail filters (Sieve): look, put, activate, check, try.

    The backend of the user's INBOX is asked by ManageSieve (`sieve` in its [backend]), the operator acting for the user:
    an operator's certificate may; an administrator's password only where [auth] masters names them.

    \b
    murder ctl sieve list anna
    murder ctl sieve put anna holiday holiday.sieve
    murder ctl sieve activate anna holiday
    murder ctl sieve trace anna@example.org message.eml
    """


@sieve.command("list")
@operator_options
@click.argument("user")
@json_option("user, server, scripts (a list of name, active)")
async def list_scripts(reach: Reach, user: str, as_json: bool) -> int:
    """The scripts of USER, and which is active.

    \b
    murder ctl sieve list anna
    """
    async with scripts_of(reach, user) as scripts:
        found = await scripts.all()
    if as_json:
        shown = [{"name": name, "active": is_active} for name, is_active in found]
        print_json({"user": user, "server": scripts.server, "scripts": shown})
    else:
        print_table(
            ("script", ""),
            [[plain(name), "active" if is_active else ""] for name, is_active in found],
            empty=f"{user} has no scripts",
        )
    return 0


@sieve.command()
@operator_options
@click.argument("user")
@click.argument("name")
@json_option("user, server, name, script")
async def get(reach: Reach, user: str, name: str, as_json: bool) -> int:
    """The text of one script, as it is.

    \b
    murder ctl sieve get anna holiday > holiday.sieve
    """
    async with scripts_of(reach, user) as scripts:
        octets = await scripts.read(name)
    if as_json:
        text = octets.decode("utf-8", "replace")
        print_json({"user": user, "server": scripts.server, "name": name, "script": text})
    else:
        click.get_binary_stream("stdout").write(octets)
    return 0


@sieve.command()
@operator_options
@click.argument("user")
@click.argument("name")
@click.argument("file", type=FILE, default="-")
@json_option("user, server, name, octets, warnings or errors (lists of line, column, text)")
async def put(reach: Reach, user: str, name: str, file: Path, as_json: bool) -> int:
    """Keep a script of USER by this NAME, from FILE or standard input, in place of one that has the name. The backend checks
    it first: a wrong one is not taken, and its errors are told (exit code 1). A new one filters nothing until `activate`.

    \b
    murder ctl sieve put anna holiday holiday.sieve
    printf 'keep;' | murder ctl sieve put anna plain
    """
    octets = _read(file)
    async with scripts_of(reach, user) as scripts:
        facts: dict[str, object] = {"user": user, "server": scripts.server, "name": name}
        facts["octets"] = len(octets)
        try:
            warnings = await scripts.put(name, octets)
        except WrongScript as wrong:
            if not as_json:
                raise
            print_json({**facts, "errors": _places(wrong.faults)})
            return 1
    text = "\n".join((f"{name} is kept at {scripts.server}", *map(str, warnings)))
    return say(as_json, {**facts, "warnings": _places(warnings)}, text)


@sieve.command()
@operator_options
@click.argument("user")
@click.argument("name")
@json_option("user, server, active")
async def activate(reach: Reach, user: str, name: str, as_json: bool) -> int:
    """Filter the mail of USER by this script from now on, and by no other.

    \b
    murder ctl sieve activate anna holiday
    """
    async with scripts_of(reach, user) as scripts:
        await scripts.activate(name)
    facts = {"user": user, "server": scripts.server, "active": name}
    return say(as_json, facts, f"{name} filters the mail of {user}")


@sieve.command()
@operator_options
@click.argument("user")
@json_option("user, server, active (null)")
async def deactivate(reach: Reach, user: str, as_json: bool) -> int:
    """No script filters the mail of USER from now on.

    \b
    murder ctl sieve deactivate anna
    """
    async with scripts_of(reach, user) as scripts:
        await scripts.activate("")
    facts = {"user": user, "server": scripts.server, "active": None}
    return say(as_json, facts, f"No script filters the mail of {user}")


@sieve.command()
@operator_options
@click.argument("user")
@click.argument("name")
@yes_option("remove the script")
@json_option("user, server, deleted (a list of names); without --yes: plan, the same")
async def delete(reach: Reach, user: str, name: str, yes: bool, as_json: bool) -> int:
    """Remove a script. The active one stays: `deactivate` first.

    \b
    murder ctl sieve delete anna holiday --yes
    """
    async with scripts_of(reach, user) as scripts:
        await scripts.read(name)  # that it is there
        if yes:
            await scripts.delete(name)
    facts = {"user": user, "server": scripts.server, "deleted": [name] if yes else []}
    if yes:
        return say(as_json, facts, f"{name} is deleted")
    say(as_json, {**facts, "plan": [name]}, f"{name} of {user}, at {scripts.server}")
    click.echo("1 script. Re-run with --yes", err=True)
    return 2


@sieve.command()
@click.argument("file", type=FILE)
@json_option("errors, warnings (lists of line, column, text)")
async def check(file: Path, as_json: bool) -> int:
    """Whether a script is right, by what this version's backends understand; no server is asked. Exit code 1 where not.

    \b
    murder ctl sieve check holiday.sieve
    """
    try:
        program = await Compiler(MAX_SCRIPT).program(_read(file))
    except BadScript as bad:
        return _wrong(bad, file, as_json)
    facts = {"errors": [], "warnings": _places(program.warnings)}
    return say(as_json, facts, "\n".join((f"{file} is right", *map(str, program.warnings))))


@sieve.command()
@click.argument("file", type=FILE)
@click.argument("message", type=FILE)
@click.option("--envelope-from", "sender", default=None, help="[default: of the message's From]")
@click.option("--envelope-to", "recipient", default=None, help="[default: of the message's To]")
@json_option(TRIED)
async def test(
    file: Path, message: Path, sender: str | None, recipient: str | None, as_json: bool
) -> int:
    """What the script in FILE would do with the message in MESSAGE. No server is asked, and nothing is delivered; what the
    script asks of the world (is there such a mailbox?) is assumed, and said.

    \b
    murder ctl sieve test holiday.sieve message.eml
    murder ctl sieve test holiday.sieve message.eml --envelope-from bob@b.org
    """
    octets = _read(message)
    try:
        program, compiler = await _compiled(_read(file))
    except BadScript as bad:
        return _wrong(bad, file, as_json)
    to = recipient if recipient is not None else _address_in(octets, "To")
    trial = await _try(
        compiler, program, octets, _envelope(octets, sender, to), Offline(), "localhost"
    )
    return _tell(trial, {"script": str(file), "server": None}, as_json)


@sieve.command()
@operator_options
@click.argument("address")
@click.argument("message", type=FILE)
@click.option("--envelope-from", "sender", default=None, help="[default: of the message's From]")
@json_option(f"address, mailbox, {TRIED}")
async def trace(
    reach: Reach, address: str, message: Path, sender: str | None, as_json: bool
) -> int:
    """Which script decides for mail to ADDRESS, and what it would do with the message in MESSAGE, step by step: its tests,
    its actions, and what it asks of its user's mailboxes. Nothing is delivered. Filters of plugins are not asked.

    \b
    murder ctl sieve trace anna+lists@example.org message.eml
    """
    octets = _read(message)
    entry, user = await route(reach, address)
    facts: dict[str, object] = {"address": address, "mailbox": reach.shown(entry.name)}
    if not user:
        return _no_script(
            facts,
            entry.server,
            "a shared mailbox has no script of a user; the site's are not asked",
            as_json,
        )
    async with scripts_of(reach, user) as scripts:
        name = next((name for name, is_active in await scripts.all() if is_active), None)
        if name is None:
            return _no_script(facts, scripts.server, f"{user} has no active script", as_json)
        script = await scripts.read(name)
        facts |= {"script": name, "server": scripts.server}
        try:
            program, compiler = await _compiled(script, scripts)
        except BadScript as bad:
            if not as_json:
                click.echo(
                    f"{plain(name)} of {user} cannot be run, and the message is kept:", err=True
                )
            return _wrong(bad, Path(name), as_json, facts)
        envelope = _envelope(octets, sender, address)
        world = Online(reach, scripts)
        trial = await _try(compiler, program, octets, envelope, world, scripts.server)
    return _tell(trial, facts, as_json)


# --- what they share


def _read(file: Path) -> bytes:
    """Raises OSError."""
    if str(file) == "-":
        return click.get_binary_stream("stdin").read()
    return file.read_bytes()


def _address_in(octets: bytes, field: str) -> str:
    """The first address of a header field; empty where there is none."""
    found = message_from_bytes(octets[: 1024 * 1024], policy=compat32).get(field, "")
    return parseaddr(str(found))[1]


def _envelope(octets: bytes, sender: str | None, recipient: str) -> Envelope:
    by = sender if sender is not None else _address_in(octets, "From")
    return Envelope(by.removeprefix("<").removesuffix(">"), recipient)


async def _compiled(script: bytes, scripts: UserScripts | None = None) -> tuple[Script, Compiler]:
    """By what the server understands, where there is one. Raises BadScript."""
    compiler = Compiler(MAX_SCRIPT)
    if scripts is not None and scripts.understood:
        compiler = Compiler(MAX_SCRIPT, compiler.capabilities & set(scripts.understood))
    return await compiler.program(script), compiler


async def _try(
    compiler: Compiler,
    program: Script,
    octets: bytes,
    envelope: Envelope,
    world: Offline,
    host: str,
) -> Trial:
    cache = compiler.cache
    return await run_trial(program, octets, envelope, world, host, cache.compiler, compiler.limits)


def _places(faults: Sequence[ScriptFault | Problem]) -> list[dict[str, object]]:
    return [{"line": fault.line, "column": fault.column, "text": fault.text} for fault in faults]


def _wrong(
    bad: BadScript, file: Path, as_json: bool, facts: Mapping[str, object] | None = None
) -> int:
    if as_json:
        print_json({**(facts or {}), "errors": _places(bad.problems), "warnings": []})
    else:
        for problem in bad.problems:
            click.echo(plain(f"{file}: {problem}"), err=True)
        click.echo(count(len(bad.problems), "error"), err=True)
    return 1


def _no_script(facts: dict[str, object], server: str, why: str, as_json: bool) -> int:
    """The message is kept."""
    kept = {"action": "keep", "line": 0, "include": ""}
    nothing = {
        "script": None,
        "server": server,
        "actions": [kept],
        "steps": [],
        "asked": [],
        "notes": [],
    }
    text = f"{facts['address']} -> {facts['mailbox']} at {server}\nno script: {why}\nkeep"
    return say(as_json, {**facts, **nothing, "failure": None}, text)


def _tell(trial: Trial, facts: Mapping[str, object], as_json: bool) -> int:
    """Exit code 1 after a run-time error."""
    outcome = trial.outcome
    if as_json:
        report = {
            "actions": [_facts_of(action) for action in outcome.actions],
            "steps": [
                {"line": one.line, "include": one.include, "word": one.word, "outcome": one.outcome}
                for one in outcome.trace
            ],
            "asked": [
                {"question": one.question, "answer": one.answer, "assumed": one.assumed}
                for one in trial.asked
            ],
            "notes": list(outcome.notes),
            "failure": str(outcome.failure) if outcome.failure else None,
        }
        print_json({**facts, **report})
        return 1 if outcome.failure else 0
    if "address" in facts:
        click.echo(
            plain(
                f"{facts['address']} -> {facts['mailbox']}: script {facts['script']} at {facts['server']}"
            )
        )
    for step in outcome.trace:
        where = f"{step.include}: " if step.include else ""
        what = "" if step.outcome == "done" else f": {step.outcome}"
        click.echo(plain(f"  {where}line {step.line}: {step.word}{what}"))
    for asked in trial.asked:
        assumed = " (assumed)" if asked.assumed else ""
        click.echo(plain(f"  {asked.question}? {asked.answer}{assumed}"))
    for note in outcome.notes:
        click.echo(plain(f"  note: {note}"))
    if outcome.failure:
        click.echo(plain(f"run-time error: {outcome.failure}; the message is kept"), err=True)
    for action in outcome.actions:
        click.echo(plain(_shown(_facts_of(action))))
    return 1 if outcome.failure else 0


def _shown(facts: Mapping[str, object]) -> str:
    """An action, for a person."""
    rest = [
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in facts.items()
        if key not in ("action", "line", "include", "implicit") and value not in ("", [], False)
    ]
    place = f"{facts['include']} " if facts["include"] else ""
    line = [f"({place}line {facts['line']})"] if facts["line"] else []
    implicit = ["(no action says otherwise)"] if facts.get("implicit") else []
    return " ".join([str(facts["action"]), *rest, *line, *implicit])


def _facts_of(action: Action) -> dict[str, object]:
    """What it is about, without the texts of messages."""
    about: dict[str, object]
    match action:
        case Keep(flags=flags, implicit=implicit):
            about = {"flags": list(flags or ()), "implicit": implicit}
        case FileInto(target=target, flags=flags):
            about = {**_target(target), "flags": list(flags or ())}
        case Redirect(address=address):
            about = {"to": address}
        case Reject(text=text):
            about = {"text": text}
        case Reply(recipient=recipient, copy=copy):
            about = {"to": recipient, **(_target(copy) if copy else {})}
        case Notify(method=method, recipients=recipients):
            about = {"method": method, "to": list(recipients)}
        case Pipe(program=program):
            about = {"program": program}
        case Discard() | Remember():
            about = {}
    word = "vacation" if isinstance(action, Reply) else type(action).__name__.lower()
    return {"action": word, "line": action.place.line, "include": action.place.include, **about}


def _target(target: Target) -> dict[str, object]:
    return {
        "mailbox": target.mailbox,
        "create": target.create,
        "mailbox_id": target.mailbox_id,
        "special_use": target.special_use,
    }
