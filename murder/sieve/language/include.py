"""Scripts that include others: RFC 6609. They are asked for when they are needed, and compiled as any other."""

import re
from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.problem import BadScript, RunProblem
from murder.sieve.questions import LongWork, ScriptNamed
from murder.sieve.run.machine import Frame, Machine

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.check.emit import Emitter
    from murder.sieve.grammar.tree import Node

MAX_NAME: Final = 256  # characters of a script's name
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def is_script_name(name: str) -> bool:
    """No path, no control characters (RFC 5804 §1.6)."""
    if not 0 < len(name) <= MAX_NAME or "/" in name or name in (".", ".."):
        return False
    return not any(
        ord(letter) < 0x20
        or 0x7F <= ord(letter) <= 0x9F
        or letter in "\u2028\u2029"
        or 0xD800 <= ord(letter) <= 0xDFFF
        for letter in name
    )


def _check_include(checker: "Checker", call: Call, node: "Node") -> None:
    name = call.arguments[0]
    if not isinstance(name, str):
        if "variables" in checker.required:
            raise Wrong(node.at, "this include command takes a constant string")
        return
    if not is_script_name(name):
        raise Wrong(node.at, f"include: invalid script name '{name[:80]}'")
    is_global = call.tags.get("location") == "global"
    checker.includes.append((name, is_global, "optional" in call.tags, call.line))


def _include(machine: Machine, call: Call) -> Suspended:
    name = machine.text(call.arguments[0])
    is_global = call.tags.get("location") == "global"
    key = (name, is_global)
    if "once" in call.tags and key in machine.included:
        return
    if len(machine.frames) > machine.limits.include_depth:
        raise RunProblem(f"cannot nest includes deeper than {machine.limits.include_depth} levels")
    opened = {(frame.include, frame.is_global) for frame in machine.frames}
    if key in opened:
        raise RunProblem(f"circular include of script '{name[:80]}'")
    machine.state["includes"] = machine.state.get("includes", 0) + 1
    if machine.state["includes"] > machine.limits.includes:
        raise RunProblem(f"too many scripts are included (max {machine.limits.includes})")
    octets = yield ScriptNamed(name, is_global)
    if octets is None:
        if "optional" in call.tags:
            return
        raise RunProblem(
            f"included {'global' if is_global else 'personal'} script '{name[:80]}' does not exist"
        )
    machine.included.add(key)
    script = machine.cache.find(octets)
    if script is None:
        compiled = yield LongWork(lambda: _compiled(machine, octets))
        if isinstance(compiled, BadScript):
            problem = compiled.problems[0]
            raise RunProblem(f"included script '{name[:80]}' is not valid: {problem}")
        script = machine.cache.keep(compiled)
    machine.frames.append(Frame(script, include=name, is_global=is_global))


def _compiled(machine: Machine, octets: bytes) -> object:
    try:
        return machine.cache.compiler(octets)
    except BadScript as bad:
        return bad


def _emit_return(emitter: "Emitter", call: Call) -> None:
    emitter.leave(call)


def _check_global(checker: "Checker", call: Call, node: "Node") -> None:
    if "variables" not in checker.required:
        raise Wrong(node.at, "global command requires that variables extension is active")
    names = []
    for name in call.arguments[0]:
        if not isinstance(name, str) or not _VARIABLE.match(name):
            raise Wrong(node.at, f"invalid variable identifier '{str(name)[:60]}'")
        if len(name) > checker.limits.name_octets:
            raise Wrong(node.at, f"variable name '{name[:20]}...' is too long")
        names.append(name.lower())
    if node.name != "global" and not checker.is_early and not checker.late_is_told:
        checker.late_is_told = True
        raise Wrong(
            node.at,
            f"the {node.name} command can only be placed at top level at the beginning of the file "
            "after any require or import/export commands",
        )
    for name in names:
        if name in checker.set_here and name not in checker.shared_here:
            raise Wrong(node.at, f"variable '{name}' was set before, and is local to this script")
    checker.shared_here.update(names)
    call.data = tuple(names)


def _global(machine: Machine, call: Call) -> Result:
    """From here on these names are the ones that all scripts share."""
    for name in call.data:
        if len(machine.shared) >= machine.limits.variables and name not in machine.shared:
            raise RunProblem("there are too many variables")
        machine.shared.setdefault(name, "")
        machine.frame.shared.add(name)
    return None


INCLUDE: Final = Extension(
    "include",
    words=(
        Word(
            "include",
            (Argument("script name", Takes.STRING),),
            (
                Tag("personal", group="location"),
                Tag("global", group="location"),
                Tag("once"),
                Tag("optional"),
            ),
            check=_check_include,
            run=_include,
        ),
        Word("return", emit=_emit_return),
        *(
            Word(
                name,
                (Argument("variable names", Takes.STRINGS),),
                check=_check_global,
                run=_global,
            )
            for name in ("global", "import", "export")  # the last two are of drafts
        ),
    ),
)
