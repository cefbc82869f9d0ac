"""`murder ctl sieve`: users' mail filters, looked at, changed and tried."""

from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.policy import compat32
from email.utils import parseaddr
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options, yes_option
from murder.admin.cli.ctl.trial import TRIED, tell
from murder.admin.cli.options import Group, json_option, print_json, print_table, say
from murder.admin.cli.screen import count, plain
from murder.admin.operate.filtering import Offline, OfSite, Online, Shared, Tried, run_trial
from murder.admin.operate.reach import Reach
from murder.admin.operate.routes import route
from murder.admin.operate.scripts import ScriptFault, WrongScript, scripts_of
from murder.admin.operate.site_scripts import (
    SiteScripts,
    shared_script_at,
    site_script_at,
    site_scripts_at,
)
from murder.config import load_config
from murder.roles.backend.scripts.check import Compiler
from murder.roles.backend.scripts.site import load_site
from murder.sieve import CAPABILITIES, BadScript, Envelope, Limits, Problem, Script

FILE: Final = click.Path(path_type=Path, allow_dash=True)
MAX_SCRIPT: Final = Limits().script_octets


@click.group(cls=Group)
def sieve() -> None:
    """Users' mail filters (Sieve): list, put, activate, check, test.

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
        kept = await scripts.all()
    if as_json:
        listed = [{"name": name, "active": is_active} for name, is_active in kept]
        print_json({"user": user, "server": scripts.server, "scripts": listed})
    else:
        print_table(
            ("script", ""),
            [[plain(name), "active" if is_active else ""] for name, is_active in kept],
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
    it first: one with errors is refused, and they are printed (exit code 1). A new one filters nothing until `activate`.

    \b
    murder ctl sieve put anna holiday holiday.sieve
    printf 'keep;' | murder ctl sieve put anna plain
    """
    octets = _read(file)
    if not octets:
        raise click.UsageError(
            "that is an empty script; a user without a filter: murder ctl sieve deactivate"
        )
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
    """Whether a script is valid, by what this version's backends understand; no server is asked. Exit code 1 where not.

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
@click.option(
    "--site",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    metavar="FILE",
    help="A backend's murder.toml: the scripts that its [sieve] names run before and behind, as for its mail.",
)
@json_option(TRIED)
async def test(
    file: Path,
    message: Path,
    sender: str | None,
    recipient: str | None,
    site: Path | None,
    as_json: bool,
) -> int:
    """What the script in FILE would do with the message in MESSAGE. No server is asked, and nothing is delivered; what the
    script asks of the world (is there such a mailbox?) is assumed, and said.

    \b
    murder ctl sieve test holiday.sieve message.eml
    murder ctl sieve test holiday.sieve message.eml --envelope-from bob@b.org
    murder ctl sieve test holiday.sieve message.eml --site /etc/murder/murder.toml
    """
    octets = _read(message)
    world, around = Offline(), SiteScripts()
    if site is not None:
        loaded = load_site(load_config(site))
        world = OfSite({name: script.octets for name, script in loaded.named.items()})
        around = SiteScripts(
            [(script.name, script.octets) for script in loaded.before],
            [(script.name, script.octets) for script in loaded.after],
            loaded.users.policy,
        )
    try:
        own = await _own(str(file), "the user", _read(file), around, None)
    except BadScript as bad:
        return _wrong(bad, file, as_json)
    scripts, faults = await _ordered(around, [own])
    to = recipient if recipient is not None else _address_in(octets, "To")
    trial = await run_trial(scripts, octets, _envelope(octets, sender, to), world, "localhost")
    return tell(trial, {"script": str(file), "server": None}, as_json, faults)


@sieve.command()
@operator_options
@click.argument("address")
@click.argument("message", type=FILE)
@click.option("--envelope-from", "sender", default=None, help="[default: of the message's From]")
@json_option(f"address, mailbox, {TRIED}")
async def trace(
    reach: Reach, address: str, message: Path, sender: str | None, as_json: bool
) -> int:
    """Which scripts decide for mail to ADDRESS, and what they would do with the message in MESSAGE, step by step: the site's
    that run before, the user's active one (or a shared mailbox's), the site's behind it, as the mailbox's backend has them
    in force; their tests, their actions, and what they ask of the user's mailboxes. Nothing is delivered, no program is run.
    Filters of plugins are not asked.

    \b
    murder ctl sieve trace anna+lists@example.org message.eml
    """
    octets = _read(message)
    entry, user = await route(reach, address)
    facts: dict[str, object] = {"address": address, "mailbox": reach.shown(entry.name)}
    facts |= {"script": None, "server": entry.server}
    of_site = await site_scripts_at(reach, entry.server)
    if of_site is None:
        click.echo(f"{entry.server} does not tell which scripts of the site it runs", err=True)
    around = of_site or SiteScripts()
    envelope = _envelope(octets, sender, address)
    if not user:
        name = await shared_script_at(reach, entry.server, entry.name)
        script = await site_script_at(reach, entry.server, name) if name else None
        own: list[Tried] = []
        bad: BadScript | None = None
        if script is not None:
            facts["script"] = name
            own, bad = await _tried(name, "", script, around, None)
        why = f"the site has no script {plain(name)}" if name else "none is named for this mailbox"
        shared = Shared(reach, entry.server)
        return await _trace(around, own, bad, octets, envelope, shared, facts, why, as_json)
    async with scripts_of(reach, user) as scripts:
        active = next((name for name, is_active in await scripts.all() if is_active), None)
        own, bad = [], None
        if active is not None:
            facts["script"] = active
            script = await scripts.read(active)
            own, bad = await _tried(active, user, script, around, scripts.understood)
        why = f"{user} has no active script"
        online = Online(reach, scripts)
        return await _trace(around, own, bad, octets, envelope, online, facts, why, as_json)


async def _trace(
    around: SiteScripts,
    own: list[Tried],
    bad: BadScript | None,
    octets: bytes,
    envelope: Envelope,
    world: Offline,
    facts: dict[str, object],
    why: str,
    as_json: bool,
) -> int:
    """`bad`: why the script in the middle cannot be run; `why` there is none."""
    scripts, faults = await _ordered(around, own)
    if bad is not None and not scripts:
        name = plain(str(facts["script"]))
        if not as_json:
            click.echo(f"{name} cannot be run, and the message is kept:", err=True)
        return _wrong(bad, Path(name), as_json, facts)
    if bad is not None:
        faults = (*faults, (str(facts["script"]), str(bad)))
    if not scripts:
        return _no_script(facts, why, as_json)
    if facts["script"] is None and not as_json:
        click.echo(f"{why}; the site's scripts decide")
    trial = await run_trial(scripts, octets, envelope, world, str(facts["server"]))
    return tell(trial, facts, as_json, faults)


# --- what they share


def _read(file: Path) -> bytes:
    """Raises OSError."""
    if str(file) == "-":
        return click.get_binary_stream("stdin").read()
    return file.read_bytes()


def _address_in(octets: bytes, field: str) -> str:
    """The first address of a header field; empty where there is none."""
    text = message_from_bytes(octets[: 1024 * 1024], policy=compat32).get(field, "")
    return parseaddr(str(text))[1]


def _envelope(octets: bytes, sender: str | None, recipient: str) -> Envelope:
    by = sender if sender is not None else _address_in(octets, "From")
    return Envelope(by.removeprefix("<").removesuffix(">"), recipient)


async def _own(
    name: str, owner: str, script: bytes, around: SiteScripts, understood: Sequence[str] | None
) -> Tried:
    """By what the server understands, where there is one. Raises BadScript."""
    known = CAPABILITIES & frozenset(understood) if understood else CAPABILITIES
    compiler = Compiler(MAX_SCRIPT, known, policy=around.policy)
    return _made(name, owner, await compiler.program(script), compiler)


def _made(name: str, owner: str, program: Script, compiler: Compiler) -> Tried:
    return Tried(name, owner, program, compiler.limits, compiler.policy, compiler.cache)


async def _tried(
    name: str, owner: str, script: bytes, around: SiteScripts, understood: Sequence[str] | None
) -> tuple[list[Tried], BadScript | None]:
    """The script, or what is wrong with it."""
    try:
        return [await _own(name, owner, script, around, understood)], None
    except BadScript as bad:
        return [], bad


async def _ordered(
    around: SiteScripts, own: Sequence[Tried]
) -> tuple[list[Tried], tuple[tuple[str, str], ...]]:
    """All scripts in the order in which they run; and of those of the site that cannot, name and problem."""
    scripts: list[Tried] = []
    faults: list[tuple[str, str]] = []
    compiler = Compiler(MAX_SCRIPT, policy=around.policy)
    for group, behind in ((around.before, own), (around.after, ())):
        for name, octets in group:
            try:
                scripts.append(_made(name, "", await compiler.program(octets), compiler))
            except BadScript as bad:
                faults.append((name, str(bad)))
        scripts += behind
    return scripts, tuple(faults)


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


def _no_script(facts: dict[str, object], why: str, as_json: bool) -> int:
    """The message is kept."""
    kept = {"action": "keep", "line": 0, "include": "", "script": ""}
    lists = ("scripts", "steps", "asked", "notes", "faults")
    nothing = {"actions": [kept], **{word: [] for word in lists}}
    text = f"{facts['address']} -> {facts['mailbox']} at {facts['server']}\nno script: {why}\nkeep"
    return say(as_json, {**facts, **nothing, "failure": None}, text)
