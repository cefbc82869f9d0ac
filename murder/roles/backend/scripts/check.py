"""Whether a script is right: what is wrong with it, line by line; and its program, kept by its content."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from murder.model.name import Namespace
from murder.roles.backend.scripts.longer import aside_for
from murder.sieve import (
    CAPABILITIES,
    BadScript,
    Limits,
    Policy,
    Problem,
    Script,
    ScriptCache,
    compile_script,
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found: with an error a script is not taken."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


class Compiler:
    """Scripts become programs here, in one worker; a script's size is bounded by who takes it in, and here again."""

    def __init__(
        self,
        max_octets: int,
        capabilities: Collection[str] = CAPABILITIES,
        namespace: Namespace | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.capabilities = frozenset(capabilities)
        self.policy = policy or Policy()
        prefix = namespace.personal_prefix.decode() if namespace is not None else ""
        self.limits = replace(Limits(), script_octets=max_octets, own_prefix=prefix)
        self.cache = ScriptCache(self._compile)

    def _compile(self, octets: bytes) -> Script:
        return compile_script(octets, self.limits, self.capabilities, self.policy)

    @property
    def extensions(self) -> Sequence[str]:
        """The words of the SIEVE capability."""
        return sorted(self.capabilities)

    async def program(self, script: bytes, whose: str = "") -> Script:
        """`whose` turn it takes: a user's, or the site's. Raises BadScript."""
        compiled = self.cache.find(script)
        if compiled is not None:
            return compiled
        return self.cache.keep(await aside_for(whose, partial(self._compile, script)))

    async def check(self, script: bytes, whose: str) -> Checked:
        try:
            return Checked(warnings=(await self.program(script, whose)).warnings)
        except BadScript as bad:
            return Checked(bad.problems)
