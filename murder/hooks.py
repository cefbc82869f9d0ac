"""Plugins: found, loaded, given their settings, asked in the operator's order.

A plugin is a module: one of the bundled `plugins/`, or `NAME.py` (or a package NAME) in a folder of `[plugins] path`.
The manager lives in a `Plugins` object; there is no global one. Everything wrong with a plugin at load is a
ConfigError that names the plugin and its file. Knows no roles.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pluggy

from murder.api.auth import AuthBackend
from murder.api.delivery import DeliveryFilter
from murder.api.events import Event, EventListener
from murder.api.hookspecs import PROJECT
from murder.api.kinds.auth import AUTH
from murder.api.kinds.delivery import DELIVERY
from murder.api.kinds.events import EVENTS
from murder.api.kinds.kind import Kind
from murder.api.kinds.list_log import LIST
from murder.api.kinds.sasl import SASL
from murder.api.kinds.service import SERVICE
from murder.api.kinds.store import STORE
from murder.api.kinds.table import KINDS
from murder.api.list_log import ListLog
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.sasl import BUILT_IN, Mechanism
from murder.api.service import Service
from murder.api.store import MailboxStore
from murder.config import ROLES, Config, ConfigError, Problem, parts_of
from murder.config.load import settings_from, unknown
from murder.errors import Misuse, Refusal, unreadable
from murder.model.entry import Location

BUNDLED_PACKAGE: Final = "plugins"
SITE_PREFIX: Final = "murder_site_plugin_"


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that could be loaded. `file` is None for the bundled ones (they may be inside the archive)."""

    name: str
    file: Path | None

    @property
    def shown(self) -> str:
        return f"plugin {self.name} ({self.file or 'bundled'})"


@functools.cache  # `config check` looks as another user, too, who may not see where the archive is unpacked
def bundled_plugins() -> Sequence[Found]:
    """The plugins that murder brings."""
    package = importlib.import_module(BUNDLED_PACKAGE)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [Found(name, None) for name in names if not name.startswith("_")]


def site_plugins(folders: Sequence[Path]) -> Iterator[Found]:
    """The plugins of a site's own folders."""
    for folder in folders:
        for file in sorted(folder.glob("*.py")):
            if not file.name.startswith("_"):
                yield Found(file.stem, file)
        for file in sorted(folder.glob("*/__init__.py")):
            yield Found(file.parent.name, file)


def site_plugin(file: Path) -> Found | None:
    """The plugin in this file, or in the folder of a package; None where there is none."""
    package = file / "__init__.py"
    whole = file if file.is_file() else package
    name = file.parent.name if file.name == "__init__.py" else file.stem
    return Found(name, whole.absolute()) if whole.is_file() else None


def bundled_settings() -> dict[str, type]:
    """The Settings class of each bundled plugin that has one, for the example configuration."""
    classes = {
        bundled_plugin.name: getattr(load_module(bundled_plugin), "Settings", None)
        for bundled_plugin in bundled_plugins()
    }
    return {name: cls for name, cls in classes.items() if isinstance(cls, type)}


def hooks_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of a module that are marked with `@hookimpl`, by hook name."""
    marked: dict[str, Callable[..., Any]] = {}
    for name, function in vars(module).items():
        options = getattr(function, f"{PROJECT}_impl", None)
        if inspect.isfunction(function) and options is not None:
            marked[options.get("specname") or name] = function
    return marked


def load_module(plugin: Found) -> ModuleType:
    """Import it; whatever it raises comes out."""
    if plugin.file is None:
        return importlib.import_module(f"{BUNDLED_PACKAGE}.{plugin.name}")
    name = SITE_PREFIX + plugin.name
    spec = importlib.util.spec_from_file_location(name, plugin.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{plugin.file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def why(error: BaseException) -> str:
    """An exception in one line, with the place in the plugin's own file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno} of {error.filename})"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def load_plugins(
    config: Config, roles: Collection[str] = ROLES, kinds: Sequence[Kind] = KINDS
) -> "Plugins":
    """Load what the configuration names and the roles need. Raises ConfigError."""
    return _Loader(config, kinds).load(parts_of(roles))


def named_for(config: Config, kind: Kind) -> tuple[tuple[str, ...], str]:
    """The plugins that the kind's keys of murder.toml name, and the key that does."""
    for dotted in filter(None, (kind.several, kind.key)):
        section, _, key = dotted.partition(".")
        named = getattr(getattr(config, section), key)
        if named and named != kind.built_in:
            names = (named,) if isinstance(named, str) else tuple(named)
            return tuple(kind.prefix + name.removeprefix(kind.prefix) for name in names), dotted
    return (), kind.key


def naming(config: Config, kind: Kind, name: str) -> Config:
    """The same where the kind's key names this plugin, and no other."""
    section, _, key = kind.key.partition(".")
    return replace(config, **{section: replace(getattr(config, section), **{key: name})})


def kinds_of(module: ModuleType) -> list[Kind]:
    """Of which kinds a plugin is."""
    hooks = hooks_of(module)
    return [kind for kind in KINDS if kind.hook in hooks]


class _Loader:
    """Gathers what is wrong while it loads."""

    def __init__(self, config: Config, kinds: Sequence[Kind]) -> None:
        self.config, self.kinds = config, kinds
        self.problems: list[Problem] = []
        self.manager = pluggy.PluginManager(PROJECT)
        for specs in dict.fromkeys(kind.specs for kind in kinds):
            self.manager.add_hookspecs(specs)
        self.settings: dict[str, object] = {}
        self.claims: dict[str, list[str]] = {kind.hook: [] for kind in kinds if kind.key}

    def problem(self, key: str, text: str) -> None:
        self.problems.append(Problem(self.config.file, key, text))

    def load(self, roles: Collection[str]) -> "Plugins":
        known = self._find()
        for name, key in self._wanted(roles):
            if name in known:
                self._register(known[name], key)
            else:
                self.problem(key, f"{name!r}: {unknown('plugin', name, known)}")
        self._check_claims(roles)
        for name in self.config.plugins.settings:
            if name not in known:
                self.problem(f"plugins.{name}", unknown("plugin or key", name, [*known, *_KEYS]))
        if not self.problems:
            self._check_pending()
        if self.problems:
            raise ConfigError(self.problems)
        return Plugins(self.config, self.manager, self.settings)

    def _find(self) -> dict[str, Found]:
        known: dict[str, Found] = {}
        folders = [folder for folder in self.config.plugins.path if self._is_folder(folder)]
        for plugin in [*bundled_plugins(), *site_plugins(folders)]:
            if plugin.name in known:
                text = f"{known[plugin.name].shown} and {plugin.shown} have one name; rename a file"
                self.problem("plugins.path", text)
            known[plugin.name] = plugin
        return known

    def _is_folder(self, folder: Path) -> bool:
        problem = "is no folder; make it or remove the line"
        try:
            if folder.is_dir():
                return True
        except OSError as error:
            problem = unreadable(folder, error)
        self.problem("plugins.path", f"{folder} {problem}")
        return False

    def _wanted(self, roles: Collection[str]) -> list[tuple[str, str]]:
        """Plugin names with the key that names them, in order of registration: pluggy asks the last first, the
        operator's list reads first to last."""
        use = self.config.plugins.use
        wanted = [(name, "plugins.use") for name in reversed(use)]
        for twice in sorted({name for name in use if use.count(name) > 1}):
            self.problem("plugins.use", f"names {twice!r} twice; one is enough")
            wanted = list(dict.fromkeys(wanted))
        makers: list[tuple[str, str]] = []
        for kind in self.kinds:
            if kind.key and (not kind.role or kind.role in roles):
                names, key = named_for(self.config, kind)
                makers += [(name, key) for name in dict.fromkeys(names)]
                for twice in sorted({name for name in names if names.count(name) > 1}):
                    self.problem(key, f"names {twice!r} twice; one is enough")
        return [pair for pair in makers if pair[0] not in use] + wanted

    def _register(self, plugin: Found, key: str) -> None:
        try:
            module = load_module(plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (foreign code may raise anything)
            self.problem(key, f"{plugin.shown} failed to load: {why(error)}")
            return
        functions = hooks_of(module)
        if not functions:
            hooks = ", ".join(kind.hook for kind in self.kinds)
            self.problem(
                key,
                f"{plugin.shown} has no hook; mark one of {hooks} with @hookimpl from murder.api",
            )
            return
        before = len(self.problems)
        settings = self._settings(plugin, module)
        if len(self.problems) > before:
            return
        bound = {name: _with_settings(function, settings) for name, function in functions.items()}
        try:
            self.manager.register(_Registered(bound), name=plugin.name)
        except pluggy.PluginValidationError as error:
            self.problem(key, f"{plugin.shown}: {_first_sentence(error)}")
            return
        self.settings[plugin.name] = settings
        for maker in self.claims.keys() & functions.keys():
            self.claims[maker].append(plugin.name)

    def _settings(self, plugin: Found, module: ModuleType) -> object:
        table = self.config.plugins.settings.get(plugin.name, {})
        cls = getattr(module, "Settings", None)
        prefix = f"plugins.{plugin.name}"
        if cls is None:
            for name in table:
                self.problem(
                    f"{prefix}.{name}", f"{plugin.shown} takes no settings; remove the key"
                )
            return None
        if not dataclasses.is_dataclass(cls) or not isinstance(cls, type):
            self.problem(prefix, f"{plugin.shown}: `Settings` must be a frozen dataclass")
            return None
        try:
            return settings_from(cls, table, self.config.file, prefix)
        except ConfigError as error:
            self.problems.extend(error.problems)
        except ValueError as error:  # in its own words; an operator need not see its lines
            self.problem(prefix, f"{plugin.shown} refuses its settings: {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 (foreign code may raise anything)
            self.problem(prefix, f"{plugin.shown} refuses its settings: {why(error)}")
        return None

    def _check_claims(self, roles: Collection[str]) -> None:
        """The plugins that make auth backends, and the one that makes the store, are those that are named for it."""
        for kind in self.kinds:
            if not kind.key:
                continue
            chosen, key = named_for(self.config, kind)
            claimants = self.claims[kind.hook]
            others = [name for name in claimants if name not in chosen]
            if others:
                text = f"{', '.join(chosen)} and {', '.join(others)} ([plugins] use) claim the same job ({kind.hook})"
                cure = f"; take one out, or name both in {kind.several}" if kind.several else ""
                self.problem(key, text + (cure or "; take one out"))
            needed = not kind.role or kind.role in roles
            for name in chosen:
                if needed and name in self.settings and name not in claimants:
                    text = f"plugin {name} has no hook {kind.hook}; name another"
                    self.problem(key, text)

    def _check_pending(self) -> None:
        """A hook that no specification knows: misspelt."""
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError:
            specs = [
                name
                for kind_specs in {kind.specs for kind in self.kinds}
                for name in vars(kind_specs)
                if not name.startswith("_")
            ]
            for plugin, name in ((p, n) for p in self.manager.get_plugins() for n in vars(p)):
                if name not in specs:
                    owner = self.manager.get_name(plugin)
                    self.problem(
                        "plugins.use", f"plugin {owner}: `{name}`: {unknown('hook', name, specs)}"
                    )


_KEYS: Final = ("path", "use")


def _first_sentence(error: pluggy.PluginValidationError) -> str:
    """What pluggy says, in one line, without its object's repr."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if not line.startswith("Plugin ")]
    return "; ".join(wanted) if wanted else " ".join(lines)


class _Registered:
    """What pluggy is given: a plugin's hooks as attributes."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)


def _with_settings(function: Callable[..., Any], settings: object) -> Callable[..., Any]:
    """The same hook with its own plugin's settings in place of the argument `settings`, if it takes it."""
    names = list(inspect.signature(function).parameters)
    if "settings" not in names:
        return function
    at = names.index("settings")

    @functools.wraps(function)  # pluggy reads the wrapped function's argument names
    def call(*args: object) -> object:
        return function(*args[:at], settings, *args[at + 1 :])

    return call


class Plugins:
    """The loaded plugins, as the roles ask them."""

    def __init__(
        self, config: Config, manager: pluggy.PluginManager, settings: Mapping[str, object]
    ) -> None:
        self._config = config
        self._manager = manager
        self.settings = {name: made for name, made in settings.items() if made is not None}
        self._hook: Any = manager.hook
        self._services: list[Service] | None = None
        self._started: dict[str, list[str]] = {}  # by role the plugins that were told of its start

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded plugins in the order in which they are asked."""
        return tuple(reversed([name for name, _ in self._manager.list_name_plugin()]))

    def auth_backends(self) -> list[tuple[str, AuthBackend]]:
        """New authentication backends of the plugins that `[auth]` names, with their names, in order. Raises ConfigError."""
        return [(name, self.make(AUTH, name)) for name in named_for(self._config, AUTH)[0]]

    def store(self) -> MailboxStore:
        """A new store of the plugin that `[backend] store` names. Raises ConfigError."""
        made: MailboxStore = self.make(STORE)
        return made

    def list_log(self, config: Config | None = None) -> ListLog | None:
        """A new log of the plugin that `[mupdate] engine` names, or does in another configuration; None for a list of one
        master. Raises ConfigError."""
        if config is not None and config is not self._config:
            return load_plugins(config, ("mupdate",), (LIST,)).list_log()
        if not named_for(self._config, LIST)[0]:
            return None
        made: ListLog = self.make(LIST)
        return made

    def delivery_filters(self) -> list[tuple[str, DeliveryFilter]]:
        """The filters of all plugins with the plugins' names, in the operator's order. Raises ConfigError."""
        return self.make_all(DELIVERY)

    def event_listeners(self) -> list[tuple[str, Callable[[str, str, Mapping[str, object]], None]]]:
        """Whom to tell what happens, with the plugins' names: for `log.listen`. Raises ConfigError."""

        def teller(listener: EventListener) -> Callable[[str, str, Mapping[str, object]], None]:
            return lambda name, level, facts: listener.happened(Event(name, level, facts))

        return [(name, teller(listener)) for name, listener in self.make_all(EVENTS)]

    def mechanisms(self) -> list[Mechanism]:
        """The SASL mechanisms of all plugins, in the operator's order. Raises ConfigError."""
        by_name: dict[str, Mechanism] = {}
        for name, rows in self.make_all(SASL):
            for row in rows:
                if not isinstance(row, Mechanism):
                    raise self._problem(SASL, f"{name}: {row!r} is not a murder.api.Mechanism")
                if row.name in by_name or row.name in BUILT_IN:
                    text = f"{name}: there is a mechanism {row.name} already; take one out"
                    raise self._problem(SASL, text)
                by_name[row.name] = row
        return list(by_name.values())

    def services(self, role: str = "") -> list[Service]:
        """The protocols of all plugins, or of those that a role may listen on, in the operator's order. Made once. Raises
        ConfigError."""
        if self._services is None:
            self._services = self._make_services()
        return [service for service in self._services if not role or role in service.roles]

    def _make_services(self) -> list[Service]:
        services: list[Service] = []
        taken: dict[str, str] = {}
        for plugin, service in self.make_all(SERVICE):
            if not isinstance(service, Service):
                raise self._problem(SERVICE, f"{plugin}: {service!r} is not a murder.api.Service")
            spec = service.protocol
            for name in {spec.name, *(key.name for key in spec.keys)}:
                if taken.setdefault(name, plugin) != plugin:
                    text = f"{plugin} and {taken[name]} both bring {name}; take one out"
                    raise self._problem(SERVICE, text)
            services.append(service)
        return services

    def choose_backend(
        self, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
    ) -> Location | None:
        """Where a new mailbox goes: the first plugin that decides; None where none does."""
        answer = self._hook.choose_backend(settings=None, mailbox=mailbox, candidates=candidates)
        if answer is not None and not isinstance(answer, Location):
            raise Misuse(
                f"a plugin's choose_backend must answer a Location or None, not {answer!r}"
            )
        return answer

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        """Relay or refer: the first plugin that decides; relay where none does."""
        answer = self._ask_referrers(question)
        if answer is None:
            return Conduct.RELAY
        if not isinstance(answer, Conduct):
            raise Misuse(f"a plugin's relay_or_refer must answer a Conduct or None, not {answer!r}")
        return answer

    def _ask_referrers(self, question: ReferralQuestion) -> object:
        """This is asked at every login and SELECT: so the functions themselves, without pluggy's steps, unless a wrapper
        stands around them."""
        if self._has_wrapper:
            return self._hook.relay_or_refer(settings=None, question=question)
        given = {"settings": None, "question": question}
        for function, names in self._referrers:
            answer = function(*map(given.__getitem__, names))
            if answer is not None:
                return answer
        return None

    @functools.cached_property
    def _has_wrapper(self) -> bool:
        impls = self._hook.relay_or_refer.get_hookimpls()
        return any(impl.hookwrapper or impl.wrapper for impl in impls)

    @functools.cached_property
    def _referrers(self) -> list[tuple[Callable[..., object], tuple[str, ...]]]:
        """In the operator's order, with the names of what they take."""
        impls = reversed(self._hook.relay_or_refer.get_hookimpls())
        return [(impl.function, tuple(impl.argnames)) for impl in impls]

    def refers_unable(self) -> bool:
        """Whether any of them may refer a client that has not shown that it can follow a referral."""
        if self._has_wrapper:
            return True
        spared = {
            hookimpl.plugin
            for hookimpl in self._hook.refers_unable.get_hookimpls()
            if hookimpl.function(*[None] * len(hookimpl.argnames)) is False
        }
        impls = self._hook.relay_or_refer.get_hookimpls()
        return any(impl.plugin not in spared for impl in impls)

    def refers_logins(self) -> bool:
        """Whether a client should know of login referrals before it logs in."""
        return bool(self._hook.refers_logins(settings=None))

    async def role_starts(self, role: str, worker: int) -> None:
        """Tell every plugin. Raises ConfigError with the one that fails, and those before it are told of the end."""
        for name in self.names:
            try:
                await self._tell(name, "role_starts", role, worker)
            except Exception as error:
                await self.role_stops(role, worker)
                text = f"{name}: role_starts failed: {why(error)}"
                raise ConfigError([Problem(self._config.file, "plugins.use", text)]) from error
            self._started.setdefault(role, []).append(name)

    async def role_stops(self, role: str, worker: int) -> list[tuple[str, Exception]]:
        """Tell every plugin that was told of the start; those that failed, and how."""
        failed = []
        started = self._started.get(role, [])
        while started:
            name = started.pop()
            try:
                await self._tell(name, "role_stops", role, worker)
            except Exception as error:  # noqa: BLE001 - the end of a plugin: others are told all the same
                failed.append((name, error))
        return failed

    async def _tell(self, name: str, hook: str, role: str, worker: int) -> None:
        for answer in self._caller_of(hook, name)(settings=None, role=role, worker=worker):
            if inspect.isawaitable(answer):
                await answer

    def _caller_of(self, hook: str, name: str) -> Any:
        """A hook of one plugin only."""
        others = [p for other, p in self._manager.list_name_plugin() if other != name]
        return self._manager.subset_hook_caller(hook, others)

    def make(self, kind: Kind, name: str = "") -> Any:
        """Ask one plugin only: the one of that name, else the one that the kind's key names. Raises ConfigError."""
        name = name or named_for(self._config, kind)[0][0]
        try:
            caller = self._caller_of(kind.hook, name)
            made = caller(settings=None, data_dir=self._config.node.data)
        except ConfigError:
            raise
        except (Refusal, OSError) as error:
            raise self._problem(kind, f"{name}: {error}") from error
        except Exception as error:
            raise self._problem(kind, f"{name}: {kind.hook} failed: {why(error)}") from error
        if isinstance(made, list) and not kind.key:  # pluggy's, of one plugin
            (made,) = made or ((),)
        missing = [method for method in kind.methods if not callable(getattr(made, method, None))]
        if missing:
            text = f"{name}: what {kind.hook} returned has no {', '.join(missing)}"
            raise self._problem(kind, text)
        return made

    def make_all(self, kind: Kind) -> list[tuple[str, Any]]:
        """What each plugin of a kind makes, with its name, in the operator's order. Raises ConfigError."""
        makers = {
            hookimpl.plugin_name for hookimpl in getattr(self._hook, kind.hook).get_hookimpls()
        }
        return [(name, self.make(kind, name)) for name in self.names if name in makers]

    def asked(self, kind: Kind) -> Callable[..., object]:
        """The hook of a kind that decides; it takes its arguments by name."""
        return functools.partial(getattr(self._hook, kind.hook), settings=None)

    def _problem(self, kind: Kind, text: str) -> ConfigError:
        return ConfigError([Problem(self._config.file, kind.key or "plugins.use", text)])
