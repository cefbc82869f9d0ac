"""Authentication backends: strangers stay out, and whoever the backend can make gets in."""

from collections.abc import Callable
from typing import Final

from murder.api.auth import (
    AuthBackend,
    ChecksAttempts,
    ChecksFewAtOnce,
    Denied,
    Diagnoses,
    HasScramDecoys,
    HasScramSecrets,
    LocksOut,
    LoginAttempt,
    ManagesGroups,
    ManagesUsers,
    RecallsPasswords,
)
from murder.api.contract.check import Check, expect, hold, let_loop_turn
from murder.model.identity import Identity

Make = Callable[[], AuthBackend]

NOBODY: Final = "no-such-user-7f3a"
SOMEBODY: Final = "contract-user"
SECRET: Final = b"contract secret"


async def keeps_strangers_out(make: Make) -> None:
    """A user that does not exist is not let in, whatever the password."""
    backend = make()
    for password in (b"", b"x", SECRET, b"\xff\xfe\x00", b"a" * 100_000):
        expect(await backend.verify(NOBODY, password), None, f"verify of {password[:9]!r}")


async def survives_odd_names(make: Make) -> None:
    """Odd names are unknown users, not errors."""
    backend = make()
    for name in ("", " ", "a:b", "../etc/passwd", "ä", "x" * 10_000, "*", "'; --", "(uid=*)"):
        expect(await backend.verify(name, SECRET), None, f"verify of {name[:20]!r}")


async def lets_its_own_users_in(make: Make) -> None:
    """Where it keeps users itself: the right password gets in, a wrong one does not, a removed user neither."""
    backend = make()
    if not isinstance(backend, ManagesUsers):
        return
    await backend.set_passwords({SOMEBODY: SECRET})
    identity = await backend.verify(SOMEBODY, SECRET)
    hold(isinstance(identity, Identity), f"the right password answered {identity!r}")
    expect(await backend.verify(SOMEBODY, SECRET + b"x"), None, "a wrong password")
    expect(await backend.verify(SOMEBODY, b""), None, "no password")
    expect(await backend.lookup(SOMEBODY), identity, "lookup of the same user")
    expect(await make().verify(SOMEBODY, SECRET), identity, "verify in another process")
    hold(await backend.remove(SOMEBODY), "remove said that there was nobody")
    expect(await backend.verify(SOMEBODY, SECRET), None, "verify after remove")


async def gives_scram_secrets_of_users_only(make: Make) -> None:
    """Where it has SCRAM secrets: none for a user or a mechanism that it does not know."""
    backend = make()
    if not isinstance(backend, HasScramSecrets):
        return
    expect(await backend.scram_secret(NOBODY, "SCRAM-SHA-256"), None, "an unknown user's secret")
    expect(await backend.scram_secret(NOBODY, "NO-SUCH"), None, "an unknown mechanism's secret")


async def makes_the_same_decoys_always(make: Make) -> None:
    """Where it makes up SCRAM secrets for users that it does not know: the same in every process, another for each."""
    first_made, other = make(), make()
    if not isinstance(first_made, HasScramDecoys) or not isinstance(other, HasScramDecoys):
        return
    first, again = (each.scram_decoy(NOBODY, "SCRAM-SHA-256") for each in (first_made, other))
    expect((again.salt, again.iterations), (first.salt, first.iterations), "a decoy elsewhere")
    hold(
        first.salt != first_made.scram_decoy(NOBODY + "x", "SCRAM-SHA-256").salt,
        "all have one salt",
    )


async def recalls_right_passwords_only(make: Make) -> None:
    """Where it recalls passwords: none that was wrong, and none of a user who is removed."""
    backend = make()
    if not isinstance(backend, RecallsPasswords):
        return
    await backend.verify(NOBODY, SECRET)
    expect(backend.recall(NOBODY, SECRET), None, "recall of an unknown user")
    if isinstance(backend, ManagesUsers):
        await backend.set_passwords({SOMEBODY: SECRET})
        identity = await backend.verify(SOMEBODY, SECRET)
        hold(backend.recall(SOMEBODY, SECRET) in (None, identity), "it recalls somebody else")
        await backend.verify(SOMEBODY, SECRET + b"x")
        expect(backend.recall(SOMEBODY, SECRET + b"x"), None, "recall of a wrong password")
        await backend.remove(SOMEBODY)
        expect(backend.recall(SOMEBODY, SECRET), None, "recall after remove")


async def denies_in_words(make: Make) -> None:
    """Where it checks attempts: a user that it does not know is `Denied`, whatever the password, and nothing is let in with
    an empty one."""
    backend = make()
    if not isinstance(backend, ChecksAttempts):
        return
    attempt = LoginAttempt("imap", "check.example.org", "192.0.2.1", is_tls=True)
    hold(
        all(name in LoginAttempt.__dataclass_fields__ for name in backend.depends_on),
        "depends_on names what is no field of LoginAttempt",
    )
    for password in (b"", SECRET):
        answer = await backend.check(attempt, NOBODY, password)
        hold(isinstance(answer, Denied), f"check of {password!r} answered {answer!r}")
    if isinstance(backend, ManagesUsers):
        await backend.set_passwords({SOMEBODY: SECRET})
        expect(await backend.check(attempt, SOMEBODY, b"wrong"), Denied.WRONG, "a wrong password")
        expect(await backend.check(attempt, SOMEBODY, b""), Denied.WRONG, "no password")
        answer = await backend.check(attempt, SOMEBODY, SECRET)
        hold(isinstance(answer, Identity), f"the right password answered {answer!r}")


async def keeps_out_whom_it_locks(make: Make) -> None:
    """Where it locks users out: nobody whom it does not know, and of its own just those, in every process."""
    backend, other = make(), make()
    if not isinstance(backend, LocksOut) or not isinstance(other, LocksOut):
        return
    hold(not backend.is_locked_out(NOBODY), "somebody is locked out who is not there")
    if isinstance(backend, ManagesUsers) and isinstance(backend, ManagesGroups):
        await backend.set_passwords({SOMEBODY: SECRET})
        for disabled in (True, False):
            await backend.set_disabled(SOMEBODY, disabled)
            said = [each.is_locked_out(SOMEBODY) for each in (backend, other)]
            expect(said, [disabled] * 2, "is_locked_out here and in another process")


async def finds_all_well(make: Make) -> None:
    """Where it looks whether what it depends on works: it does."""
    backend = make()
    if isinstance(backend, Diagnoses):
        faults = await backend.diagnose()
        hold(not faults, "; ".join(f"{fault.what} -> {fault.cure}" for fault in faults))


async def checks_one_at_least(make: Make) -> None:
    """Where it says how many passwords it checks at once: one or more."""
    backend = make()
    if isinstance(backend, ChecksFewAtOnce):
        hold(backend.checks_at_once >= 1, f"checks_at_once is {backend.checks_at_once}")


async def leaves_the_loop_turning(make: Make) -> None:
    """While it verifies, the event loop turns: slow hashes and networks do not block other sessions."""
    backend = make()
    await let_loop_turn(backend.verify(NOBODY, SECRET) for _ in range(4))


AUTH_CHECKS: Final[tuple[Check, ...]] = (
    finds_all_well,
    keeps_strangers_out,
    survives_odd_names,
    lets_its_own_users_in,
    gives_scram_secrets_of_users_only,
    makes_the_same_decoys_always,
    recalls_right_passwords_only,
    denies_in_words,
    keeps_out_whom_it_locks,
    checks_one_at_least,
    leaves_the_loop_turning,
)
