"""The rooms import downwards only; `murder/__init__.py` is their map.

A room is a package or a module directly in murder/, in one of the two houses there (roles/, admin/), or the top-level
plugins/. A room that is not in the table below fails the test, so that a new one is placed on purpose.
"""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder.model.protocol import PROTOCOLS

ROOT = Path(__file__).parent.parent
HOUSES = {"roles", "admin"}  # rooms of one kind under one roof: nothing is in them but rooms
# murder itself is only the version and the map, a house only its name
EVERYWHERE = {"errors", "murder"} | HOUSES
PURE = {"model", "wire", "session"}
ROLE = PURE | {"net", "api", "config", "log", "trail", "auth", "serve", "hooks"} | {"roles.mupdate"}
FRONT, BACK, BOTH = "roles.frontend", "roles.backend", "roles.unified"
TOP = ROLE | {"pki", FRONT, BACK, BOTH, "node", "__main__"}
MAY_IMPORT = {  # room -> rooms of ours it may import, besides itself
    "errors": set[str](),
    "durable": set(),
    "kerberos": set(),
    "model": set(),
    "wire": {"model"},
    "mime": {"model"},
    "sieve": {"model", "mime"},
    "api": {"model"},
    "kit": {"durable", "model", "api"},
    "log": set(),
    "trail": {"log"},
    "pki": {"durable"},
    "session": {"model", "wire"},
    "config": {"model", "api"},
    "hooks": {"model", "api", "config"},
    "net": PURE | {"config", "log", "trail", "pki", "kerberos"},
    "auth": PURE | {"durable", "net", "api", "config"},
    "serve": PURE | {"net", "api", "config", "log", "trail", "auth"},
    "roles.mupdate": ROLE,
    FRONT: ROLE,
    BACK: ROLE | {"durable", "mime", "sieve"},
    BOTH: ROLE | {FRONT, BACK},
    "node": {"model", "wire", "api", "net", "config", "log", "trail", "hooks", "pki", "__main__"},
    "archive": {"__main__"},
    "admin.demo": TOP,
    "admin.operate": ROLE | {"durable", "node", "sieve"},
    "admin.manual": set(),
    "admin.web": ROLE | {"node", "admin.operate", "admin.manual"},
    "admin.cli": TOP | {"admin.demo", "admin.operate", "sieve", "admin.manual"},
    "__main__": {"admin.cli"},
    "plugins": {"durable", "kerberos", "model", "api", "kit"},
}
MAY_USE = {  # third party -> the rooms that may know it
    "asyncclick": {"admin.cli"},
    "h11": {"node"},
    "jinja2": {"admin.web"},
    "markupsafe": {"admin.web"},
    "prometheus_client": {"node"},
    "dns": {"roles.mupdate"},
    "cryptography": {"pki", "plugins", "net", "node"},
    "google": {"plugins"},  # protobuf
    "grpclib": {"plugins"},
    "h2": {"plugins"},
    "httpcore": {"kit"},
    "httpx": {"kit", "plugins"},
    "jwt": {"plugins"},
    "lmdb": {"roles.mupdate"},
    "pluggy": {"api", "hooks"},
    "re2": {"model", "sieve"},
    "scramp": {"session", "plugins"},
    "structlog": {"log"},
    "tomli": {"config", "plugins"},
    "uvloop": {"net", "admin.cli", "node"},
}
IN_ORDER = {  # room -> its modules and rooms, each importing only those before it
    "kit": (
        *(
            "http",
            "schema",
            "root",
            "numbers",
            "rows",
            "sizes",
            "mapped",
            "pages",
            "uids",
            "bodies",
            "expunged",
            "retained",
            "epoch",
            "format",
            "incoming",
            "flags",
            "settings",
        ),
        *("mailbox", "once", "transfer", "store", "carry", "check"),
    ),
    "pki": ("authority", "trust"),
    "node.control": ("measured", "sockets", "node"),
    "roles.mupdate": ("database", "commits", "zone", "serving", "remote", "role"),
    "node.process": (
        "host",
        "garbage",
        "stuck",
        "otlp",
        "server",
        "preflight",
        "exposed",
        "channel",
        "slot",
        "workers",
    ),
}
CALLED_BACK_BY = {  # module -> those that import it, and are in the signatures of what it describes
    # a command's functions, of which its row in a table of the language is made
    "murder.sieve.check.spec": {
        "murder.sieve.check.checker",
        "murder.sieve.check.emit",
        "murder.sieve.run.machine",
    },
    # who has asked hears by whom it is answered
    "murder.net.outgoing.exchange": {"murder.net.outgoing.relay"},
}
NEVER_IN_PURE = {"asyncio", "socket", "ssl", "time", "logging", "select", "threading", "uvloop"}


def files_of(room: str) -> list[Path]:
    place = ROOT / "plugins" if room == "plugins" else ROOT / "murder" / room.replace(".", "/")
    return [*place.rglob("*.py"), *place.parent.glob(f"{place.name}.py")]


def rooms_in(home: Path) -> set[str]:
    """The modules and packages directly in a package."""
    packages = {path.name for path in home.iterdir() if any(path.glob("*.py"))}
    return {path.stem for path in home.glob("*.py")} - {"__init__"} | packages


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The dotted names a file imports, in full, wherever in the file it does."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            if node.module == "murder":
                yield from (f"murder.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def room_of(dotted: str) -> str | None:
    """The room a dotted name is in; None when it is not ours."""
    head, _, rest = dotted.partition(".")
    if head == "plugins":
        return "plugins"
    if head != "murder":
        return None
    room, _, below = rest.partition(".")
    if room in HOUSES:
        return f"{room}.{below.partition('.')[0]}" if below else room
    is_room = (ROOT / "murder" / room).is_dir() or (ROOT / "murder" / f"{room}.py").is_file()
    return room if room and is_room else "murder"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_downwards_only(room: str) -> None:
    for path in files_of(room):
        rooms = {found for name in imported(path) if (found := room_of(name))}
        stray = rooms - MAY_IMPORT[room] - EVERYWHERE - {room}
        assert not stray, f"{path.relative_to(ROOT)} reaches up to {sorted(stray)}"


@pytest.mark.parametrize("room", IN_ORDER)
def test_modules_of_a_room_import_those_before_them_only(room: str) -> None:
    order = IN_ORDER[room]
    home = ROOT / "murder" / room.replace(".", "/")
    assert rooms_in(home) == set(order)
    for place, module in enumerate(order):
        inside = {
            name.removeprefix(f"murder.{room}.").split(".")[0]
            for path in files_of(f"{room}.{module}")
            for name in imported(path)
            if name.startswith(f"murder.{room}.")
        }
        stray = inside - {*order[:place], module}
        assert not stray, f"{module} reaches up to {stray}"


def module_of(path: Path) -> str:
    """As it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def without_types(tree: ast.Module) -> ast.Module:
    """What is imported for the type checker alone is left out: nothing runs by it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


def imports_by_module(*, types: bool) -> dict[str, set[str]]:
    """Which of our modules each imports, wherever in it; with `types` also those for the type checker alone."""
    files = [*(ROOT / "murder").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    known = {module_of(path): path for path in files}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        found: set[str] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree if types else without_types(tree)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update(inner & known.keys() or {node.module})
        graph[module] = (found & known.keys()) - {module}
    return graph


def in_circles(graph: dict[str, set[str]]) -> dict[str, list[str]]:
    """Whoever imports nobody that is left is taken out; what cannot be taken out is in a circle, or above one."""
    assert len(graph) > 300
    while ends := [module for module, found in graph.items() if not found & graph.keys()]:
        for module in ends:
            del graph[module]
    return {module: sorted(found & graph.keys()) for module, found in graph.items()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not in_circles(imports_by_module(types=False))


def test_modules_name_each_other_by_type_only_where_one_calls_the_other_back() -> None:
    """By a signature alone a module may name one that imports it, in these places and no other."""
    graph = imports_by_module(types=True)
    for module, called in CALLED_BACK_BY.items():
        assert called <= graph[module], f"{module} names {called - graph[module]} no more"
        graph[module] -= called
    assert not in_circles(graph)


def test_no_plugin_imports_another() -> None:
    """What two of them need is in the kit, where a site's own plugins find it too."""
    for path in (ROOT / "plugins").rglob("*.py"):
        own = path.relative_to(ROOT / "plugins").parts[0].removesuffix(".py")
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "plugins":
                assert parts[1:2] == [own], f"{path.relative_to(ROOT)} imports {name}"


def test_services_stand_in_the_room_of_their_role() -> None:
    """`model.protocol` names them in words, which the rule above does not see."""
    for spec in PROTOCOLS:
        assert spec.served_by.keys() <= {"frontend", "backend"}
        for role, target in spec.served_by.items():
            module, _, name = target.partition(":")
            assert module.startswith(f"murder.roles.{role}.")
            service = getattr(importlib.import_module(module), name)
            assert list(inspect.signature(service).parameters) == ["connection", "service", role]


def test_every_room_has_its_row() -> None:
    home = ROOT / "murder"
    rooms = rooms_in(home) - HOUSES
    for house in HOUSES:
        rooms |= {f"{house}.{room}" for room in rooms_in(home / house)}
    assert rooms == MAY_IMPORT.keys() - {"plugins"}


@pytest.mark.parametrize("package", MAY_USE)
def test_third_party_is_known_only_where_it_belongs(package: str) -> None:
    for room in MAY_IMPORT.keys() - MAY_USE[package]:
        for path in files_of(room):
            used = {name.partition(".")[0] for name in imported(path)}
            assert package not in used, f"{path.relative_to(ROOT)} imports {package}"


@pytest.mark.parametrize("room", ["model", "wire", "mime", "sieve", "session"])
def test_protocol_code_waits_for_nothing(room: str) -> None:
    for path in files_of(room):
        stray = {name.partition(".")[0] for name in imported(path)} & NEVER_IN_PURE
        assert not stray, f"{path.relative_to(ROOT)} imports {sorted(stray)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            waits = isinstance(
                node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
            )
            assert not waits, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} is async"


def test_the_map_shows_every_room() -> None:
    text = (ROOT / "murder" / "__init__.py").read_text(encoding="utf-8")
    shown = set(
        re.findall(r"[a-z_]+", text.partition("The map.")[2].partition("A command walks")[0])
    )
    rooms = {room.rpartition(".")[2] for room in MAY_IMPORT.keys() - {"__main__", "plugins"}}
    assert not (rooms | HOUSES) - shown
