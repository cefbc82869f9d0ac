"""`murder plugin`: list, new, api, check."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.options import (
    DEFAULT_CONFIG,
    PATH,
    Group,
    json_option,
    print_json,
    print_table,
    say,
)
from murder.admin.cli.template import format_plugin
from murder.api.contract.check import Finding, run_checks
from murder.api.kinds.kind import Kind
from murder.api.kinds.table import BY_NAME, KINDS
from murder.config import Config, ConfigError, NodeConfig, Problem, load_config
from murder.config.load import unknown
from murder.config.sections import PluginsConfig
from murder.errors import Code, Refusal
from murder.hooks import (
    Found,
    bundled_plugins,
    kinds_of,
    load_module,
    load_plugins,
    named_for,
    naming,
    site_plugin,
    site_plugins,
    why,
)

DEFAULT_FOLDER: Final = Path(".")
OPEN_ROOMS: Final = ("api", "model", "kit")  # whose modules plugins may import
OPEN_MODULES: Final = ("errors", "durable")


@click.group(cls=Group)
def plugin() -> None:
    """List plugins, start a new one, check one, show what it may use.

    \b
    murder plugin new auth campus        # writes auth_campus.py, with comments
    murder plugin check auth_campus.py   # holds it to its contract
    """


@plugin.command("list")
@click.option(
    "--config",
    "-c",
    "config_file",
    type=PATH,
    default=None,
    help="Also the plugins of this murder.toml.",
)
@json_option("a list of name, kinds, used, about, file")
def list_plugins(config_file: Path | None, as_json: bool) -> int:
    """All plugins that can be named, and what each does.

    \b
    murder plugin list --config /etc/murder/murder.toml
    """
    config = load_config(config_file) if config_file else None
    plugins = [*bundled_plugins(), *site_plugins(config.plugins.path if config else ())]
    rows = [_describe(listed, config) for listed in plugins]
    if as_json:
        print_json(rows)
    else:
        heads = ("name", "kinds", "used", "about", "file")
        print_table(heads, [[row[head] for head in heads] for row in rows])
    return 0


def _describe(candidate: Found, config: Config | None) -> dict[str, str]:
    try:
        module = load_module(candidate)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's code is called)
        kinds, about = "", f"does not load: {why(error)}"
    else:
        kinds = ",".join(kind.name for kind in kinds_of(module))
        about = (module.__doc__ or "").strip().partition("\n")[0]
    named = list(config.plugins.use) if config else []
    for kind in KINDS:
        if config and kind.key:
            named += named_for(config, kind)[0]
    return {
        "name": candidate.name,
        "kinds": kinds,
        "used": "used" if candidate.name in named else "",
        "about": about,
        "file": str(candidate.file or "bundled"),
    }


@plugin.command()
@click.argument("kind", type=click.Choice(list(BY_NAME)))
@click.argument("name")
@click.option(
    "--dir", "folder", type=PATH, default=DEFAULT_FOLDER, show_default=True, help="Where it goes."
)
@json_option("file")
def new(kind: str, name: str, folder: Path, as_json: bool) -> int:
    """Write KIND_NAME.py: a plugin that works, with comments on what to change.

    \b
    murder plugin new auth campus
    """
    name = name.removeprefix(f"{kind}_")
    if not name.isidentifier():
        raise Refusal(Code.CANNOT, f"{name!r}: letters, digits and _ make a plugin's name")
    module = f"{kind}_{name}"
    if any(bundled.name == module for bundled in bundled_plugins()):
        text = f"{module} comes with murder, which starts with no second one of that name; choose another name"
        raise Refusal(Code.ALREADY_EXISTS, text)
    file = folder / f"{module}.py"
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(format_plugin(BY_NAME[kind], name))
    except FileExistsError:
        raise Refusal(Code.ALREADY_EXISTS, f"{file} exists; it was not touched") from None
    text = f"{file}: written; follow its comments, then `murder plugin check {file}`"
    return say(as_json, {"file": str(file)}, text)


@plugin.command("api")
@click.argument("module", default="hookspecs")
@json_option("module, text")
def show_api(module: str, as_json: bool) -> int:
    """Print what plugins may use of murder: all hooks, or the MODULE (of murder.api, where nothing stands before its name).

    \b
    murder plugin api
    murder plugin api auth
    murder plugin api model.entry
    """
    known = _open_modules()
    name = module.removeprefix("murder.").removeprefix("api.")
    if name not in known:
        raise Refusal(Code.NONEXISTENT, f"{module}: {unknown('module', name, known)}")
    text = known[name].read_text(encoding="utf-8")
    return say(as_json, {"module": name, "text": text}, text.rstrip("\n"))


def _open_modules() -> Mapping[str, Traversable]:
    """The files of what plugins may import: `auth` (of murder.api), `model.entry`, `errors`."""
    root = files("murder")
    known = {name: root / f"{name}.py" for name in OPEN_MODULES}
    for room in OPEN_ROOMS:
        for file in (root / room).iterdir():
            name = file.name.removesuffix(".py")
            if file.name.endswith(".py") and not name.startswith("_"):
                known[name if room == "api" else f"{room}.{name}"] = file
    return known


@plugin.command()
@click.argument("file", type=PATH)
@click.option(
    "--config",
    "-c",
    "config_file",
    type=PATH,
    default=None,
    help=f"Take its settings from this murder.toml ({DEFAULT_CONFIG} is not read by itself).",
)
@json_option("ok (true or false), checks (a list of promise, problem)")
async def check(file: Path, config_file: Path | None, as_json: bool) -> int:
    """Hold the plugin FILE to the contract of its kind; exit code 1 where it does not keep to it, 3 where the directory (or
    whatever it asks) is away.

    FILE is a .py file, the folder of a package, or the name of a bundled plugin. Everything it
    makes goes into a new folder that is removed afterwards.

    \b
    murder plugin check auth_campus.py
    murder plugin check store_maildir
    """
    with tempfile.TemporaryDirectory(prefix="murder-check-") as folder:
        findings = await _check(_found(file), config_file, Path(folder))
    broken = [finding for finding in findings if finding.problem]
    if as_json:
        rows = [{"promise": checked.promise, "problem": checked.problem} for checked in findings]
        print_json({"ok": not broken, "checks": rows})
        return 1 if broken else 0
    for finding in findings:
        click.echo(f"{'FAILED' if finding.problem else 'ok':8}{finding.promise}")
        if finding.problem:
            click.echo(f"{'':8}{finding.problem}")
    click.echo(f"{file}: {len(findings) - len(broken)} of {len(findings)} checks passed")
    if broken and config_file is None:
        click.echo("Its settings were their defaults: --config FILE takes them from a murder.toml.")
    return 1 if broken else 0


def _found(file: Path) -> Found:
    """The plugin that is meant. Raises Refusal."""
    if (plugin := site_plugin(file)) is not None:
        return plugin
    for bundled in bundled_plugins():
        if bundled.name == str(file):
            return bundled
    raise Refusal(Code.NONEXISTENT, f"{file} is neither a file nor a bundled plugin")


async def _check(candidate: Found, config_file: Path | None, folder: Path) -> list[Finding]:
    """Load it as `serve` would, then ask for each kind that it is."""
    try:
        kinds = kinds_of(load_module(candidate))
    except (Exception, SystemExit) as error:
        text = f"does not load: {why(error)}"
        raise ConfigError([Problem(candidate.file or Path(), "", text)]) from error
    if not kinds:
        hooks = ", ".join(kind.hook for kind in KINDS)
        text = f"has no hook; mark one of {hooks} with @hookimpl"
        raise ConfigError([Problem(candidate.file or Path(), "", text)])
    config = _config_for(
        candidate, kinds, load_config(config_file) if config_file else None, folder
    )
    findings = []
    for kind in kinds:
        findings += await run_checks(kind.checks, _subject(kind, candidate, config, folder))
    return findings


def _subject(kind: Kind, candidate: Found, config: Config, folder: Path) -> object:
    """What the checks of a kind are given: see `Kind`."""
    roles = [kind.role or "frontend"]
    if not kind.makes:
        return load_plugins(config, roles).asked(kind)
    if not kind.starts:
        plugins = load_plugins(config, roles)
        return lambda: plugins.make(kind, candidate.name)
    count = 0

    async def make() -> Any:
        nonlocal count
        count += 1
        data = folder / f"{kind.name}-{count}"
        data.mkdir()
        node = replace(config.node, data=data)
        made = load_plugins(replace(config, node=node), roles).make(kind, candidate.name)
        await made.start()
        return made

    return make


def _config_for(
    candidate: Found, kinds: Sequence[Kind], given: Config | None, folder: Path
) -> Config:
    """A configuration in which this plugin has every job that it can do, alone in its folder."""
    settings = dict(given.plugins.settings) if given else {}
    config = Config(
        file=given.file if given else candidate.file or Path(candidate.name),
        node=NodeConfig(name="check.example.org", data=folder),
        plugins=PluginsConfig(
            path=(_alone(candidate.file, folder),) if candidate.file else (),
            use=(candidate.name,) if any(not kind.key for kind in kinds) else (),
            settings={candidate.name: settings.get(candidate.name, {})},
        ),
    )
    for kind in kinds:
        if kind.key:
            config = naming(config, kind, candidate.name)
    return config


def _alone(file: Path, folder: Path) -> Path:
    """A folder that has this plugin and none of its neighbours."""
    site = folder / "site"
    site.mkdir()
    target = file.parent if file.name == "__init__.py" else file
    (site / target.name).symlink_to(target)
    return site
