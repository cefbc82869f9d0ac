"""Octets of a script to a program, or to all that is wrong with it."""

import hashlib
from collections.abc import Collection, Mapping

from murder.sieve.check.checker import Checker
from murder.sieve.check.emit import Emitter
from murder.sieve.check.program import Script
from murder.sieve.check.spec import Extension
from murder.sieve.grammar.parser import parse_script
from murder.sieve.grammar.source import Source
from murder.sieve.limits import Limits, Policy


def compile_octets(
    octets: bytes,
    core: Extension,
    extensions: Mapping[str, Extension],
    capabilities: Collection[str],
    limits: Limits,
    policy: Policy,
) -> Script:
    """Raises BadScript."""
    source = Source(octets, limits.script_octets, limits.problems)
    nodes = parse_script(source, limits)
    source.raise_problems()
    available = {name: extension for name, extension in extensions.items() if name in capabilities}
    checker = Checker(source, core, available, limits, policy)
    calls = checker.script(nodes)
    source.raise_problems()
    return Script(
        Emitter().program(calls),
        len(octets),
        checker.patterns,
        checker.pieces + octets.count(b'"') + octets.count(b"$"),
        hashlib.sha256(octets).digest(),
        tuple(checker.includes),
        tuple(checker.warnings),
    )
