"""The two things that this room does: a script is compiled, and scripts are run over a message."""

from collections.abc import Collection, Sequence

from murder.sieve.cache import ScriptCache
from murder.sieve.check.compile import compile_octets
from murder.sieve.check.program import Script
from murder.sieve.language.table import CAPABILITIES, CORE, EXTENSIONS
from murder.sieve.limits import Limits, Policy
from murder.sieve.questions import LongWork, World
from murder.sieve.run.circumstances import Circumstances, Envelope, Outcome
from murder.sieve.run.machine import PAUSED, Machine
from murder.sieve.run.message import Octets

DEFAULT_LIMITS = Limits()
DEFAULT_POLICY = Policy()


def compile_script(
    octets: bytes,
    limits: Limits = DEFAULT_LIMITS,
    capabilities: Collection[str] = CAPABILITIES,
    policy: Policy = DEFAULT_POLICY,
) -> Script:
    """The program of a script; `capabilities` are the extensions that it may require. Raises BadScript with all that is
    wrong with it. Takes about 10 ms for 10 kB: who has an event loop runs it in a thread, and keeps the result
    (`sieve.cache`)."""
    return compile_octets(octets, CORE, EXTENSIONS, capabilities, limits, policy)


def start(
    scripts: Sequence[Script],
    octets: Octets,
    envelope: Envelope,
    circumstances: Circumstances,
    *,
    limits: Limits = DEFAULT_LIMITS,
    policy: Policy = DEFAULT_POLICY,
    cache: ScriptCache | None = None,
    is_traced: bool = False,
) -> Machine:
    """A run of these scripts, one after another while the message would be kept, that has not begun yet. `cache` is for
    what they include. `octets` must stay as they are until the end of the run."""
    return Machine(
        scripts,
        octets,
        envelope,
        circumstances,
        limits=limits,
        policy=policy,
        cache=cache or ScriptCache(compile_script),
        is_traced=is_traced,
    )


def run_to_end(run: Machine, world: World) -> Outcome:
    """Run without a pause, where nobody else waits."""
    while True:
        step = run.advance(100_000)
        if isinstance(step, Outcome):
            return step
        if step is not PAUSED:
            run.answer(step.compute() if isinstance(step, LongWork) else world.answer(step))
