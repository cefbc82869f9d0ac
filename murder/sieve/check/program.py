"""A script as it runs: flat instructions, each done, tested or jumped over. Immutable, and free of any message."""

from dataclasses import dataclass
from typing import Final

from murder.sieve.check.spec import Call
from murder.sieve.problem import Problem

DO: Final = 0  # run the call
UNLESS: Final = 1  # run the call, a test: go to the target where it does not hold
IF: Final = 2  # go to the target where it holds
GO: Final = 3  # to the target
STOP: Final = 4  # the script
RETURN: Final = 5  # from an included script: also its end

Instruction = tuple[int, Call | None, int]


@dataclass(frozen=True, slots=True)
class Script:
    """What `compile_script` makes. `includes`: scripts it includes by a name that does not depend on variables, with whether
    they are the site's, whether they may be missing, and the line. `warnings` have their places."""

    instructions: tuple[Instruction, ...]
    octets: int
    patterns: int  # regular expressions, each with memory of its own
    pieces: int  # objects that its texts and keys are made of
    digest: bytes
    includes: tuple[tuple[str, bool, bool, int], ...] = ()
    warnings: tuple[Problem, ...] = ()
