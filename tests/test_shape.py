"""The shape of the code: small files, small functions, empty packages, errors caught where something ends."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
MAX_FOLDER_ENTRIES = 24
LINE = 100  # as the formatter has it
# of each room's public names, with a docstring of their own or of what they keep to
MIN_TOLD = 0.85
SOURCES = sorted([*ROOT.glob("murder/**/*.py"), *ROOT.glob("plugins/**/*.py"), ROOT / "build.py"])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
# Rooms where a connection or a task ends, or a stranger's code is called.
MAY_CATCH_ALL = {
    "net",
    "roles/mupdate",
    "roles/frontend",
    "roles/backend",
    "admin/cli",
    "node",
    "hooks",
    "log",  # listeners are plugins
    "api/contract",
    "kit",  # its thread of writers
}
# of a local: where it came from, not what it holds
SAYS_NOTHING = {"told", "shown", "found", "one"}
FORBIDDEN_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "misc"}

Rule = Callable[[Path, str, ast.Module], Iterator[tuple[int, str]]]


def faults(paths: list[Path], rule: Rule) -> list[str]:
    """What a rule finds in the files: `path:line: what`."""
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for line, what in rule(path, text, ast.parse(text)):
            found.append(f"{path.relative_to(ROOT)}:{line}: {what}")
    return found


def test_files_and_functions_are_small() -> None:
    def too_long(_path: Path, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            yield lines, f"the file has {lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield node.lineno, f"{node.name} has {length} lines"

    assert not faults([*SOURCES, *TESTS], too_long)


def test_folders_can_be_taken_in() -> None:
    """Files and folders of each, `__init__.py` not counted: what is more is rooms that want an idea each."""
    homes = [ROOT / name for name in ("murder", "plugins", "tests")]
    files = [path for home in homes for path in home.rglob("*") if path.is_file()]
    entries_of: dict[Path, set[str]] = {}
    for file in files:  # what a compiler left where nothing else is any more is no entry
        if "__pycache__" not in file.parts and file.name != "__init__.py":
            for entry in (file, *file.parents):
                entries_of.setdefault(entry.parent, set()).add(entry.name)
                if entry.parent in homes:
                    break
    assert len(entries_of) > 50
    for folder, entries in entries_of.items():
        assert len(entries) <= MAX_FOLDER_ENTRIES, f"{folder.relative_to(ROOT)}: {len(entries)}"


def test_no_comment_splits_a_line() -> None:
    """A comment behind a value that would fit makes the formatter put the value on lines of its own: it stands above."""
    opening = r"^(?P<indent> *)(?P<head>[^\n#]*)\(\n(?P=indent)    (?P<value>[^\n#]*[^\n#,\s])"
    comment = r"  # (?!noqa|type:|fmt:)"
    behind = re.compile(opening + r"\n(?P=indent)\)(?P<end>:?)" + comment, re.M)
    within = re.compile(opening + comment + r"[^\n]*\n(?P=indent)\)(?P<end>,?)$", re.M)
    # several values, each on its line: the formatter has put a comma behind the last one, and keeps to it
    opening = r"^(?P<indent> *)(?P<head>[^\n#]*)[(\[{]\n(?P<value>(?:(?P=indent)    [^\n#]*,\n)+)"
    several = re.compile(opening + r"(?P=indent)[)\]}](?P<end>:?)" + comment, re.M)

    def splits(_path: Path, text: str, _tree: ast.Module) -> Iterator[tuple[int, str]]:
        for split in (*behind.finditer(text), *within.finditer(text)):
            joined = "{indent}{head}({value}){end}".format(**split.groupdict())
            if len(joined) <= LINE and not split["head"].lstrip().startswith("elif"):
                yield text.count("\n", 0, split.start()) + 1, split["value"]
        for split in several.finditer(text):
            values = " ".join(split["value"].split()).removesuffix(",")
            if len("{indent}{head}({0}){end}".format(values, **split.groupdict())) <= LINE:
                yield text.count("\n", 0, split.start()) + 1, values

    assert not faults([*SOURCES, *TESTS], splits)


Methods = dict[str, bool]  # by name, whether it says what it does


def bases_of(node: ast.ClassDef) -> list[str]:
    """Their names, without what is in brackets."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [ast.unparse(base).rpartition(".")[2] for base in plain]


class Told:
    """Which public names say what they are: by a docstring of their own, or by that of what they keep to (the method of a
    base or of a Protocol)."""

    def __init__(self, paths: list[Path]) -> None:
        self._trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
        self._classes: dict[str, list[tuple[list[str], Methods]]] = {}
        for tree in self._trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    methods = {
                        one.name: ast.get_docstring(one) is not None
                        for one in node.body
                        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
                    }
                    self._classes.setdefault(node.name, []).append((bases_of(node), methods))
        self._promised = {
            name
            for known in self._classes.values()
            for bases, methods in known
            if "Protocol" in bases
            for name, is_told in methods.items()
            if is_told
        }

    def names(self) -> Iterator[tuple[str, bool]]:
        """`path: name`, and whether it is told."""
        for path, tree in self._trees.items():
            for name, is_told in self._within(tree.body, None):
                yield f"{path.relative_to(ROOT)}: {name}", is_told

    def _within(
        self, body: list[ast.stmt], owner: ast.ClassDef | None
    ) -> Iterator[tuple[str, bool]]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            is_told = ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from self._within(node.body, node)
            elif owner is not None:
                kept_to = node.name in self._promised or self._inherits(owner.name, node.name)
                is_told = is_told or kept_to
            yield f"{owner.name}.{node.name}" if owner is not None else node.name, is_told

    def _inherits(self, owner: str, method: str) -> bool:
        return any(
            methods.get(method, False) or (owner != base and self._inherits(base, method))
            for bases, _ in self._classes.get(owner, ())
            for base in bases
            for _, methods in self._classes.get(base, ())
        )


def room_of(path: str) -> str:
    """Of a file by its path: its first folder in murder/, in roles/ and admin/ the one below; else the tree's first."""
    parts = path.split("/")
    inner = parts[1:3] if parts[1:2] in (["roles"], ["admin"]) else parts[1:2]
    return "/".join(inner) if parts[0] == "murder" else parts[0]


def test_public_names_say_what_they_are() -> None:
    rooms: dict[str, list[bool]] = {}
    untold: list[str] = []
    for name, is_told in Told(SOURCES).names():
        rooms.setdefault(room_of(name.partition(":")[0]), []).append(is_told)
        untold += [name] * (not is_told)
    assert sum(map(len, rooms.values())) > 3000
    for room, names in rooms.items():
        here = [name for name in untold if room_of(name.partition(":")[0]) == room]
        assert sum(names) >= MIN_TOLD * len(names), (room, here)


def test_modules_say_what_they_are() -> None:
    def unnamed(path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        if not ast.get_docstring(tree):
            yield 1, "no docstring"
        if set(path.stem.split("_")) & FORBIDDEN_WORDS:
            yield 1, "the file's name says nothing"

    assert not faults(SOURCES, unnamed)


def test_packages_only_reexport() -> None:
    def code(path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        declarations = ast.Assign | ast.AnnAssign | ast.Expr | ast.Import | ast.ImportFrom
        for node in tree.body:
            if path.name == "__init__.py" and not isinstance(node, declarations):
                yield node.lineno, "code in __init__.py"

    assert not faults(SOURCES, code)


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def reraises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_everything_is_caught_only_where_something_ends() -> None:
    def swallowed(path: Path, text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or not is_broad(node) or reraises(node):
                continue
            ours = parts[0] in ("murder", "plugins")
            if not ours or not {parts[1], "/".join(parts[1:3])} & MAY_CATCH_ALL:
                yield node.lineno, "catches everything"
            line = text.splitlines()[node.lineno - 1]
            if not line.partition("noqa: BLE001")[2].strip(" -()"):
                yield node.lineno, "does not say what ends here (noqa: BLE001 - the end of ...)"

    assert not faults(SOURCES, swallowed)


def test_names_say_what_they_hold() -> None:
    """Locals and arguments, of comprehensions and lambdas too. Of a field the owner's name says more."""

    def empty_names(_path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        fields = {
            id(declared.target)
            for owner in ast.walk(tree)
            if isinstance(owner, ast.ClassDef)
            for declared in owner.body
            if isinstance(declared, ast.AnnAssign)
        }
        for node in ast.walk(tree):
            match node:
                case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                    pass
                case ast.MatchAs(name=str(name)) | ast.ExceptHandler(name=str(name)):
                    pass
                case _:
                    continue
            if name in SAYS_NOTHING and id(node) not in fields:
                yield getattr(node, "lineno", 0), f"{name}: after what it holds"

    assert not faults(SOURCES, empty_names)


def test_a_session_changes_its_state_itself() -> None:
    """`state` is a plain slot, for speed: what a property would forbid is forbidden here. In the sessions only `_go`, behind
    its map of transitions, and the constructor assign it."""
    sessions = {ROOT / "murder/session" / name for name in ("imap_server.py", "mupdate_server.py")}

    def assigned(path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        allowed = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name in ("__init__", "_go")
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            if node.attr != "state":
                continue
            whose = ast.unparse(node.value)
            is_inside = path in sessions and id(node) not in allowed
            if is_inside or whose.rpartition(".")[2] == "session":
                yield node.lineno, f"{whose}.state is assigned"

    assert not faults(SOURCES, assigned)


def test_tests_wait_for_events_and_say_why_where_time_passes() -> None:
    """`asyncio.sleep(0)` is a turn of the loop. All else is in tests/kit/waiting.py: `until`, `pause` with its reason."""

    def sleeps(path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or path == ROOT / "tests/kit/waiting.py":
                continue
            if ast.unparse(node.func) in ("time.sleep", "asyncio.sleep", "sleep"):
                if [ast.unparse(argument) for argument in node.args] != ["0"]:
                    yield node.lineno, "sleeps; see tests/kit/waiting.py"

    assert not faults(TESTS, sleeps)


def test_ports_are_reserved() -> None:
    """A port that was free a moment ago is somebody's by now: tests/kit/ports.py holds them."""

    def probes(path: Path, _text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("free_port"):
                if path != ROOT / "tests/kit/ports.py":
                    yield node.lineno, "finds free ports; see tests/kit/ports.py"

    assert not faults(TESTS, probes)


def test_each_exemption_has_its_reason() -> None:
    def bare(_path: Path, text: str, _tree: ast.Module) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(text.splitlines(), 1):
            for mark, end in (("type: ignore[", "]"), ("# noqa: ", " ")):
                _, found, rest = line.partition(mark)
                if found and len(rest.partition(end)[2].strip(" -#()")) < 4:
                    yield number, "an exemption without its reason"

    assert not faults(SOURCES, bare)


# Public names that only tests use, and why they are there all the same.
ONLY_TESTED = {
    "Connection.held_back_octets": "what a peer costs: the tests of limits add it up",
    "Replica.until_synchronised": "tests and benches wait for the event, and for no moment",
    "format_mupdate_url": "RFC 3656 §6 is whole in `wire`, though no peer is known that passes such a URL on",
    "parse_mupdate_url": "likewise",
}
# Called by a name that is nowhere in our code: by libraries (asyncio's protocols, ctypes, click, logging).
CALLED_BY_LIBRARIES = {
    *("get_buffer", "eof_received", "can_write_eof", "get_write_buffer_limits", "get_protocol"),
    *("convert", "format_commands", "fatal"),
}
CALLED_BY_PLUGINS = {"read_line", "read_exactly"}  # `api.service.Stream`, by plugins of a site
REGISTERED_BY = ("command", "group", "hookimpl", "hookspec")  # decorators: who calls knows the list


def names_used(tree: ast.Module) -> Iterator[str]:
    """Read by their name, or in a string (`room.file:Name`, what `getattr` is given)."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.MatchClass(kwd_attrs=names):
                yield from names
            case ast.Constant(value=str(text)) if len(text) < 120:
                yield from re.findall(r"\w+", text) if " " not in text else ()


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, constants and what is in classes, by `Class.name`."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    owners: list[ast.Module | ast.ClassDef] = [tree, *classes]
    for owner in owners:
        for node in owner.body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    decorators = map(ast.unparse, node.decorator_list)
                    if any(word in line for line in decorators for word in REGISTERED_BY):
                        continue
                case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)]):
                    pass
                case _:
                    continue
            if not name.startswith("_"):
                yield f"{owner.name}.{name}" if isinstance(owner, ast.ClassDef) else name


def test_no_public_name_is_there_for_tests_alone() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    used = {name for tree in trees for name in names_used(tree)}
    public = {name for tree in trees for name in public_names(tree)}
    assert len(public) > 8000
    used |= CALLED_BY_LIBRARIES | CALLED_BY_PLUGINS
    unused = {name for name in public if name.rpartition(".")[2] not in used}
    assert unused == set(ONLY_TESTED)


# Private methods that a base leaves to classes in other files, or that these extend; any other of the same name would be
# called in the base's stead by chance.
LEFT_TO_OTHERS = {
    "Carrier._make",
    *(
        "ClientRole._carries_passwords",
        "ClientRole._chain",
        "ClientRole._has_list",
        "ClientRole._proxies",
    ),
    "Dialogue._pump",
    "Entering._fail",
    "ImapDialogue._login_words",
    *("PassesOn._collect_again", "PassesOn._end"),
    "Pop3Dialogue._enter",
    *(
        "Root._after_begin",
        "Root._after_end",
        "Root._before_commit",
        "Root._job_begins",
        "Root._sweep",
    ),
    "SieveDialogue._enter",
    "TakenOver._hold",
    "Talk._hear",
    "Transfers._move_in",
}


class Kin:
    """Who is derived from whom, by name, with the private methods of each class."""

    def __init__(self, paths: list[Path]) -> None:
        self._classes: dict[str, list[tuple[Path, list[str], set[str]]]] = {}
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        for path in paths:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    names = {each.name for each in node.body if isinstance(each, functions)}
                    private = {name for name in names if re.match(r"_[^_]", name)}
                    self._classes.setdefault(node.name, []).append((path, bases_of(node), private))

    def _above(self, name: str, below: tuple[str, ...] = ()) -> Iterator[str]:
        for _, bases, _ in self._classes.get(name, ()):
            for base in bases:
                if base not in below and base != name:
                    yield base
                    yield from self._above(base, (*below, name))

    def replaced(self) -> Iterator[str]:
        """`Base._method` that a class in another file has, too."""
        for name, declared in self._classes.items():
            for path, _, private in declared:
                for base in set(self._above(name)):
                    for other, _, theirs in self._classes.get(base, ()):
                        if other != path:
                            yield from (f"{base}.{method}" for method in private & theirs)


def test_nobody_replaces_a_private_method_by_chance() -> None:
    assert set(Kin(SOURCES).replaced()) == LEFT_TO_OTHERS
