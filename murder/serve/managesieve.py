"""ManageSieve as far as frontend and backend share it: greeting, TLS, login, and the replies (RFC 5804).

Every error of the session becomes its reply in `SieveDialogue.failed`, and nowhere else.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from murder import __version__
from murder.auth.gate import NotAdmitted
from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure
from murder.model.identity import Login
from murder.model.protocol import LITTLE_OCTETS
from murder.net.connection import Connection
from murder.serve.client import ClientDialogue, Running
from murder.serve.line import ANY, LOGGED_IN, STRANGER, Phase
from murder.serve.service import ClientService
from murder.session.managesieve import Response, SieveSession, TooBig, Wrong
from murder.trail.audit import MAX_ARGUMENTS
from murder.wire.base64line import decode_base64
from murder.wire.managesieve import (
    MAX_WORDS,
    XCLIENT,
    Command,
    Kind,
    format_capabilities,
    format_status,
    format_string,
)

CODES: Final = {  # a refusal's code in ManageSieve (RFC 5804 §1.3)
    Code.ALREADY_EXISTS: b"ALREADYEXISTS",
    Code.IN_USE: b"TRYLATER",
    Code.LIMIT: b"QUOTA/MAXSCRIPTS",
    Code.NONEXISTENT: b"NONEXISTENT",
    Code.OVER_QUOTA: b"QUOTA",
    Code.PRIVACY_REQUIRED: b"ENCRYPT-NEEDED",
    Code.TOO_BIG: b"QUOTA/MAXSIZE",
    Code.UNAVAILABLE: b"TRYLATER",
}
VERSION: Final = b"1.0"
Capability = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One command: when it is allowed, how many arguments it takes, and who carries it out (at once, or as a coroutine)."""

    phases: frozenset[Phase]
    run: Callable[[Any, Command], Running]
    least: int = 0
    most: int = 0
    audited: int = 0  # changes what filters the mail: so many arguments are names, and told


class SieveDialogue(ClientDialogue):
    """A ManageSieve connection."""

    protocol = "sieve"
    TABLE: ClassVar[Mapping[bytes, Row]] = {}
    service: ClientService
    session: SieveSession

    def __init__(self, connection: Connection, service: ClientService, max_script: int) -> None:
        limits = service.limits
        super().__init__(connection, SieveSession(max_script), limits.login_timeout_s)
        self.write_timeout_s = limits.write_timeout_s
        self.activity_counts = False  # until the login
        self.service = service

    # --- what a role gives

    def language(self) -> Sequence[Capability]:
        """What is said of the scripts that are understood here: SIEVE, NOTIFY, and their like."""
        raise NotImplementedError

    async def entered_here(self, login: Login) -> None:
        """Somebody has proven who they are. Raises Refusal, UpstreamFailure where they cannot be served."""

    def code_of(self, refusal: Refusal) -> bytes:
        """The response code of what is refused."""
        if refusal.code is Code.REFERRAL:
            return b"REFERRAL " + format_string(refusal.detail.encode())
        return CODES.get(refusal.code, b"")

    def left_here(self) -> None:
        """The user has said UNAUTHENTICATE."""

    # --- greeting, errors, the end

    def begin(self) -> None:
        super().begin()
        self.connection.read_at_most(LITTLE_OCTETS)

    def greet(self) -> None:
        self.tell_capabilities()

    def tell_capabilities(self) -> None:
        """RFC 5804 §1.7: as a greeting, behind STARTTLS and a login, and for CAPABILITY."""
        self.send(format_capabilities(self._capabilities()) + format_status(Kind.OK))

    def _capabilities(self) -> list[Capability]:
        mechanisms = self.service.gate.mechanisms(self.connection, self.protocol)
        rows: list[Capability] = [
            (b"IMPLEMENTATION", f"murder {__version__}".encode()),
            (b"VERSION", VERSION),
            (b"SASL", " ".join(mechanisms).encode()),
            *self.language(),
        ]
        if self.login is None and self.may_start_tls:
            rows.append((b"STARTTLS", None))
        if self.may_tell_client:
            rows.append((XCLIENT, None))
        if self.may_leave:
            rows.append((b"UNAUTHENTICATE", None))
        if self.login is not None:
            rows.append((b"OWNER", self.login.user.encode("utf-8", "surrogateescape")))
        suppressed = {word.upper().encode() for word in self.service.limits.suppress_capabilities}
        return [row for row in rows if row[0] not in suppressed]

    def timed_out(self) -> None:
        self._bye("You were silent for too long")

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """RFC 5804 §1.2: BYE, and the end."""
        self._bye(text, b"TRYLATER" if code is Code.UNAVAILABLE else b"")

    def say_hopeless(self, error: BadSyntax) -> None:
        """More octets of a string than are waited for, when nothing is kept of them: a script that is far too large."""
        self._bye(str(error), b"QUOTA/MAXSIZE" if self.login is not None else b"")

    def _bye(self, text: str, code: bytes = b"") -> None:
        self.send(format_status(Kind.BYE, text, code))
        self.close()

    def no(self, text: str, code: bytes = b"") -> None:
        """A refusal; `code` in its parentheses, without them here."""
        self.send(format_status(Kind.NO, text, code))

    def ok(self, text: str = "", code: bytes = b"") -> None:
        """A text only behind a code: sieveshell takes `OK "text"` for a broken answer."""
        self.send(format_status(Kind.OK, text, code))

    def failed(self, event: Any, error: Exception) -> None:
        self.session.expect_response(False)
        match error:
            case BadSyntax():
                self._malformed(error)
            case TimeoutError():
                self.timed_out()
            case _:
                self.note_failure(error)
                self.no(*self._why(error))

    def _why(self, error: Exception) -> tuple[str, bytes]:
        """What a client is told of it: text and response code."""
        match error:
            case BadSyntax():
                return str(error), b""
            case Refusal():
                return error.text, self.code_of(error)
            case UpstreamFailure():
                return "Your mailbox cannot be reached now, try again later", b"TRYLATER"
        return "Internal error, try again later", b"TRYLATER"

    def _malformed(self, error: BadSyntax) -> None:
        self.note_failure(error)
        if self.count_bad():
            self._bye(str(error))
        else:
            self.no(str(error))

    # --- the loop

    def handle(self, event: Any) -> Running:
        match event:
            case Command():
                return self._run_command(event)
            case Wrong(error=error):
                self._malformed(error)
            case TooBig(most=most):
                self.no(f"A string may have {most} octets", b"QUOTA/MAXSIZE")
            case _:
                raise Misuse(f"nobody waits for {type(event).__name__}")
        return None

    def _run_command(self, command: Command) -> Running:
        row = self.TABLE.get(command.name)
        phase = Phase.STRANGER if self.login is None else Phase.LOGGED_IN
        if row is None:
            raise BadSyntax("no command of this server")
        if phase not in row.phases:
            raise BadSyntax("first AUTHENTICATE" if self.login is None else "not after the login")
        if not row.least <= len(command.args) <= row.most:
            raise BadSyntax(f"{command.name.decode()} takes other arguments")
        running = self._begin_audited(row, command) if row.audited else row.run(self, command)
        self.bad_commands = 0
        return running

    def _begin_audited(self, row: Row, command: Command) -> Running:
        def answer(error: Exception) -> str:
            text, code = self._why(error)
            return f"NO ({code.decode()}) {text}" if code else f"NO {text}"

        names = b" ".join(command.args[: row.audited])[:MAX_ARGUMENTS]
        arguments = names.decode("utf-8", "backslashreplace")
        return self.run_audited(
            lambda: row.run(self, command), command.name.decode(), arguments, answer
        )

    # --- commands

    def _capability(self, command: Command) -> None:
        self.tell_capabilities()

    def _noop(self, command: Command) -> None:
        code = b"TAG " + format_string(command.args[0]) if command.args else b""
        self.ok("Done" if code else "", code)

    def _logout(self, command: Command) -> None:
        self.ok()
        self.close()

    def _starttls(self, command: Command) -> Running:
        if not self.may_start_tls:
            raise Refusal(Code.CANNOT, "No TLS here, or it is active already")
        return self._switch()

    async def _switch(self) -> None:
        await self.switch_to_tls(format_status(Kind.OK))
        self.tell_capabilities()  # RFC 5804 §2.2

    @property
    def may_leave(self) -> bool:
        """Not behind a proxy, which may pass on whatever its client says: they could become another, by its certificate."""
        has_proxy = self.login is not None and self.login.proxy
        return not has_proxy and not self.service.gate.is_proxy(self.connection)

    def _unauthenticate(self, command: Command) -> None:
        if not self.may_leave:
            raise Refusal(Code.CANNOT, "Behind a proxy nobody becomes another: connect again")
        self.left_here()
        self.forget_login()
        self.session.logged_out()
        self.ok()

    def _xclient(self, command: Command) -> None:
        if not self.may_tell_client:
            raise BadSyntax("no command of this server")
        self.take_xclient(command.args)
        self.ok()

    # --- the login

    async def ask(self, challenge: bytes) -> bytes:
        self.session.expect_response()
        self.send(format_string(base64.b64encode(challenge)) + b"\r\n")
        event = await self.next_event(self.time_left_s)
        if not isinstance(event, Response) or event.octets == b"*":
            raise BadSyntax("AUTHENTICATE was cancelled")
        return decode_base64(event.octets)

    async def _authenticate(self, command: Command) -> None:
        mechanism = command.args[0].decode("ascii", "replace").upper()
        initial = decode_base64(command.args[1]) if len(command.args) == 2 else None
        try:
            login = await self.sasl(mechanism, initial)
        except NotAdmitted as refusal:
            is_worn_out = self.login_failed(refusal.user, refusal.code.value)
            if is_worn_out:
                self._bye(refusal.text)
            else:
                self.no(refusal.text, CODES.get(refusal.code, b""))
            return
        await self._enter(login)

    async def _enter(self, login: Login) -> None:
        if self.is_for_within(login):
            heir = self.pass_on()
            heir.go_on(None, heir._enter(login))
            return
        try:
            self.count_in(login)
        except Refusal as refusal:
            self.log_not_served(login, refusal)
            self._bye(refusal.text, b"TRYLATER")
            return
        entered = False
        try:
            await self.entered_here(login)
            entered = not self.connection.is_lost
        except Refusal as refusal:
            self.log_not_served(login, refusal)
            raise
        finally:
            if not entered:
                self.count_out()
        if entered:
            limits = self.service.limits
            self.session.logged_in()
            self.entered_as(
                login,
                limits.idle_timeout_s,
                proxy=login.proxy,
                admin=login.is_admin,
                tls=self.connection.is_tls,
            )
            self.ok()


COMMON: Final[Mapping[bytes, Row]] = {
    b"AUTHENTICATE": Row(STRANGER, SieveDialogue._authenticate, 1, 2),
    b"CAPABILITY": Row(ANY, SieveDialogue._capability),
    b"LOGOUT": Row(ANY, SieveDialogue._logout),
    b"NOOP": Row(ANY, SieveDialogue._noop, 0, 1),
    b"STARTTLS": Row(STRANGER, SieveDialogue._starttls),
    b"UNAUTHENTICATE": Row(LOGGED_IN, SieveDialogue._unauthenticate),
    XCLIENT: Row(STRANGER, SieveDialogue._xclient, 0, MAX_WORDS),
}
