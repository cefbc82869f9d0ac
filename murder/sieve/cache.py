"""Compiled scripts, kept by their content: what has changed has another key, so nothing stale is ever run.

What is kept is bounded, the longest unused goes first. A script that is wrong is not kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from murder.sieve.check.program import Script

MAX_OCTETS: Final = 64 * 1024 * 1024  # of memory, about
PATTERN_OCTETS: Final = 64 * 1024  # that a regular expression takes when it was used much
PIECE_OCTETS: Final = 200  # that a part of a key takes, or a text, measured
INSTRUCTION_OCTETS: Final = 800  # that one instruction takes with its arguments, measured


def memory_of(script: Script) -> int:
    """About so many octets."""
    instructions = INSTRUCTION_OCTETS * len(script.instructions)
    pieces = PIECE_OCTETS * script.pieces
    return 2 * script.octets + instructions + pieces + PATTERN_OCTETS * script.patterns


class ScriptCache:
    """For one set of limits, capabilities and policy, which `compiler` has in it. For one thread; compiling may be done in
    another: `cache.find(octets) or cache.keep(await in_a_thread(cache.compiler, octets))`."""

    def __init__(self, compiler: Callable[[bytes], Script], max_octets: int = MAX_OCTETS) -> None:
        self.compiler = compiler
        self._max_octets = max_octets
        self._octets = 0
        self._kept: OrderedDict[bytes, Script] = OrderedDict()

    def find(self, octets: bytes) -> Script | None:
        """The program, where it is kept: in no time."""
        key = hashlib.sha256(octets).digest()
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, script: Script) -> Script:
        """For the next who asks."""
        if memory_of(script) <= self._max_octets and script.digest not in self._kept:
            self._kept[script.digest] = script
            self._octets += memory_of(script)
        while self._octets > self._max_octets:
            self._octets -= memory_of(self._kept.popitem(last=False)[1])
        return script

    def compile(self, octets: bytes) -> Script:
        """The program, at once. Raises BadScript."""
        return self.find(octets) or self.keep(self.compiler(octets))
