"""The auth plugins of a node, one behind the other: the first that knows the user decides.

Three answers of a plugin go three ways: a wrong password of a user that it knows ends it, an unknown user is the next one's,
and a plugin that cannot be asked now ends it with "try again later": nobody gets in by a later plugin because an earlier one
is away. A plugin that says no more than yes or no (`verify`) is asked by `lookup` whether it knows the user.

Application passwords are looked at before all plugins.

Each has its own turnstile, so that a slow one holds up nobody who has been let in by another.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.api.auth import (
    AuthBackend,
    BelievesAnybody,
    ChecksAttempts,
    ChecksFewAtOnce,
    ChecksTokens,
    Denied,
    Diagnoses,
    Fault,
    FindsPeople,
    HasScramDecoys,
    HasScramSecrets,
    KnowsCertificates,
    LocksOut,
    LoginAttempt,
    RecallsPasswords,
    ScramSecret,
    TakesTime,
)
from murder.auth.app_passwords import AppPassword, AppPasswords
from murder.auth.remembered import Decision, Remembered
from murder.auth.turnstile import Turnstile
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.identity import Identity
from murder.net.shared_counter import Counts, place_of

CHECKS_AT_ONCE: Final = 100  # of a plugin that only waits for somebody else
REMEMBER_S: Final = 60.0
MAX_GROUPS: Final = 1000
APP: Final = "application password"


def _not_first() -> bool:
    return False


class Link:
    """One plugin of the chain. Who hashes here shares the processors with the role's other workers."""

    def __init__(self, name: str, backend: AuthBackend, workers: int = 1) -> None:
        self.name, self.backend = name, backend
        self.recaller = backend if isinstance(backend, RecallsPasswords) else None
        self.checker = backend if isinstance(backend, ChecksAttempts) else None
        few = backend.checks_at_once if isinstance(backend, ChecksFewAtOnce) else CHECKS_AT_ONCE
        if isinstance(backend, TakesTime):
            few = max(1, few // workers)
        self.turnstile = Turnstile(few)

    async def check(
        self,
        attempt: LoginAttempt,
        user: str,
        password: bytes,
        is_familiar: Callable[[], bool] = _not_first,
    ) -> Identity | Denied:
        """What this plugin says. When many wait, turns are given by address; `is_familiar`: before the others."""
        if self.recaller is not None:
            identity = self.recaller.recall(user, password)
            if identity is not None:
                return identity
        turnstile = self.turnstile
        first = turnstile.is_full and is_familiar()
        async with turnstile.turn(place_of(attempt.address), first=first):
            if self.checker is not None:
                return await self.checker.check(attempt, user, password)
            decision = await self.backend.verify(user, password)
            if decision is not None:
                return decision
        return Denied.UNKNOWN

    async def knows(self, user: str) -> bool:
        """Whether a plugin that has said no to the password knows the user all the same."""
        return self.checker is None and await self.backend.lookup(user) is not None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin has said, for `murder auth test`."""

    plugin: str
    said: str
    took_s: float
    identity: Identity | None = None


class Chain:
    """See the module. Fulfils AuthBackend, for mechanisms of plugins."""

    def __init__(
        self,
        plugins: Sequence[tuple[str, AuthBackend]],
        *,
        remember_s: float = REMEMBER_S,
        max_groups: int = MAX_GROUPS,
        flushed: Path | None = None,
        apps: AppPasswords | None = None,
        workers: int = 1,
        counts: Counts | None = None,
    ) -> None:
        self._apps = apps
        self._max_groups = max_groups
        self.links = [Link(name, backend, workers) for name, backend in plugins]
        depends_on = {
            name
            for link in self.links
            if link.checker is not None
            for name in link.checker.depends_on
        }
        self._remembered = Remembered(remember_s, depends_on, flushed, counts)
        # Asked for each login and each recipient: what a plugin can do is looked up once.
        backends = [link.backend for link in self.links]
        # A client takes SCRAM before it says who it is, so all plugins must have secrets for it, or none is asked.
        self.has_scram = bool(backends) and all(
            isinstance(backend, HasScramSecrets) for backend in backends
        )
        self.token_checkers = [
            (link, link.backend) for link in self.links if isinstance(link.backend, ChecksTokens)
        ]
        self._lockers = [backend for backend in backends if isinstance(backend, LocksOut)]
        self.believers = frozenset(
            link.name
            for link in self.links
            if isinstance(link.backend, BelievesAnybody) and link.backend.believes_anybody
        )
        # one that knows users by their tokens or passwords only cannot say that there is no such user
        self.knows_all = not self.token_checkers and not self.believers
        self._finders = [backend for backend in backends if isinstance(backend, FindsPeople)]
        self.finds_people = bool(self._finders)
        # where one plugin alone knows passwords again
        alone = self.links[0].recaller if len(self.links) == 1 else None
        self.only_recall = None if alone is None else alone.recall

    def recall(self, attempt: LoginAttempt, user: str, password: bytes) -> Decision | None:
        """What is known already, at once; None where the plugins must be asked."""
        first = self.links[0] if self.links else None
        if first is not None and first.recaller is not None:
            identity = first.recaller.recall(user, password)
            if identity is not None:
                return Decision(identity, first.name)
            if len(self.links) == 1:
                return None
        return self._remembered.find(attempt, user, password)

    async def decide(
        self,
        attempt: LoginAttempt,
        user: str,
        password: bytes,
        is_familiar: Callable[[], bool] = _not_first,
    ) -> Decision | None:
        """Ask; None where it is a wrong password, or nobody's. Raises what the plugins raise."""
        if self._apps is not None:
            await self._apps.look_again()
            app = self._apps.find(attempt, user, password)
            if app is not None:
                return await self._by_app(app)
        asked = self._remembered.question
        for link in self.links:
            answer = await link.check(attempt, user, password, is_familiar)
            if isinstance(answer, Identity):
                decision = self._decision(answer, link)
                if link.recaller is None:
                    self._remembered.keep(attempt, user, password, decision, asked)
                return decision
            if answer is Denied.WRONG:
                return None
            if link is not self.links[-1] and await link.knows(user):
                return None
        await self._take_time(attempt, password)
        return None

    async def _by_app(self, app: AppPassword) -> Decision | None:
        """Whoever is known still, and may log in."""
        identity = await self.lookup(app.user)
        if identity is None:
            return None
        return Decision(identity.until(app.expires_at), f"{APP} {app.name}", app)

    def note_use(self, decision: Decision) -> None:
        """They are in by it now."""
        if self._apps is not None and decision.app is not None:
            self._apps.note_use(decision.app)

    async def _take_time(self, attempt: LoginAttempt, password: bytes) -> None:
        """Nobody knows the user: that takes as long as a wrong password of who is known by a plugin that hashes."""
        for link in self.links:
            if isinstance(link.backend, TakesTime):
                async with link.turnstile.turn(place_of(attempt.address)):
                    await link.backend.take_time(password)
                return

    async def try_out(self, attempt: LoginAttempt, user: str, password: bytes) -> list[Answer]:
        """As `decide`, with what each plugin says on the way; nothing is remembered. Raises Refusal for who is locked out,
        too."""
        answers: list[Answer] = []
        app = self._apps and self._apps.find(attempt, user, password)
        if app:
            decision = await self._by_app(app)
            name = f"{APP} {app.name}"
            if decision is None:
                return [Answer(name, "wrong", 0.0)]
            self.refuse_locked_out(app.user)
            return [Answer(name, "right", 0.0, decision.identity)]
        for link in self.links:
            began = time.monotonic()
            answer = await link.check(attempt, user, password)
            is_known = answer is Denied.UNKNOWN and await link.knows(user)
            took_s = time.monotonic() - began
            if isinstance(answer, Identity):
                self.refuse_locked_out(answer.user)
                answers.append(Answer(link.name, "right", took_s, answer))
                break
            said = Denied.WRONG if is_known else answer
            answers.append(Answer(link.name, said.value, took_s))
            if said is Denied.WRONG:
                break
        return answers

    async def find(self, user: str) -> Decision | None:
        """Who knows this user, and as whom."""
        for link in self.links:
            identity = await link.backend.lookup(user)
            if identity is not None:
                return self._decision(identity, link)
        return None

    async def find_surely(self, user: str) -> Decision | None:
        """The same, but for plugins that believe in anybody."""
        for link in self.links:
            if link.name not in self.believers:
                identity = await link.backend.lookup(user)
                if identity is not None:
                    return self._decision(identity, link)
        return None

    def _decision(self, identity: Identity, link: Link) -> Decision:
        """Raises UpstreamFailure where the plugin says what cannot be worked with."""
        groups, most = len(identity.groups), self._max_groups
        if groups > most:
            text = f"{identity.user} is in {groups} groups, more than auth.max_groups ({most})"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, link.name, text)
        return Decision(identity, link.name)

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend."""
        decision = await self.decide(LoginAttempt("", "", "", False), user, password)
        if decision is None:
            return None
        if not self.is_locked_out(decision.identity.user):
            self.note_use(decision)
        return decision.identity

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend."""
        decision = await self.find(user)
        return None if decision is None else decision.identity

    def is_locked_out(self, user: str) -> bool:
        """Whether a plugin keeps them out, whichever of them knows their password."""
        return any(locker.is_locked_out(user) for locker in self._lockers)

    def refuse_locked_out(self, user: str) -> None:
        """Raises Refusal for them."""
        if self.is_locked_out(user):
            raise Refusal(Code.CONTACT_ADMIN, "This account is disabled; ask your administrator")

    async def faults(self, most_s: float) -> list[tuple[str, Fault]]:
        """What each plugin finds wrong with what it depends on, with its name; also where all is well, and a look took
        so long that a login, which asks as much, has little left of its time (`most_s`)."""
        faults: list[tuple[str, Fault]] = []
        for link in self.links:
            if not isinstance(link.backend, Diagnoses):
                continue
            began = time.monotonic()
            of_link = await link.backend.diagnose()
            took_s = time.monotonic() - began
            if not of_link and took_s > most_s / 2:
                what = f"what it asks is well, but took {took_s:.0f} s to say so"
                cure = f"look at its load; a login waits {most_s:g} s for all plugins together (auth.timeout_s)"
                of_link = [Fault(what, cure)]
            faults += [(link.name, fault) for fault in of_link]
        return faults

    # --- other ways than passwords

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        """Of the first plugin that knows the user."""
        for link in self.links:
            if isinstance(link.backend, HasScramSecrets):
                secret = await link.backend.scram_secret(user, mechanism)
                if secret is not None:
                    return secret
                if link is not self.links[-1] and await link.backend.lookup(user) is not None:
                    return None
        return None

    def scram_decoy(self, user: str, mechanism: str) -> ScramSecret | None:
        """As the first plugin that makes them does; None where none does."""
        for link in self.links:
            if isinstance(link.backend, HasScramDecoys):
                return link.backend.scram_decoy(user, mechanism)
        return None

    async def token_identity(self, attempt: LoginAttempt, user: str, token: str) -> Identity | None:
        """Whose token it is, by the first plugin that knows; None where it is nobody's."""
        for link, checker in self.token_checkers:
            async with link.turnstile.turn(place_of(attempt.address)):
                answer = await checker.check_token(attempt, user, token)
            if isinstance(answer, Identity):
                return self._decision(answer, link).identity
            if answer is Denied.WRONG:
                return None
        return None

    async def certificate_identity(self, attempt: LoginAttempt) -> Identity | None:
        """Whose certificate it is, by the first plugin that knows."""
        for link in self.links:
            if isinstance(link.backend, KnowsCertificates):
                identity = await link.backend.user_of_certificate(attempt)
                if identity is not None:
                    return self._decision(identity, link).identity
        return None

    async def user_of_address(self, address: str) -> str | None:
        """Whose address it is, by the first plugin that knows."""
        for finder in self._finders:
            user = await finder.user_of_address(address)
            if user is not None:
                return user
        return None
