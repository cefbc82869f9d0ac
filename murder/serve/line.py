"""What POP3 and LMTP have in common before and at login: lines, TLS, SASL, limits, the log."""

import base64
from typing import Any, Final

from murder.auth.gate import run_sasl
from murder.errors import BadSyntax, Misuse
from murder.log import Log, logger
from murder.model.identity import Login
from murder.net.connection import Connection
from murder.net.dialogue import Dialogue
from murder.serve.imap import Running
from murder.serve.service import ClientService
from murder.session.lines import Line, LineSession
from murder.wire.base64line import decode_base64

MAX_BAD_COMMANDS = 20  # in a row: then the peer speaks something else
PRE_LOGIN_LINE_OCTETS: Final = 20 * 1024  # a SASL response of 12 KiB in base64, and a command


class LineDialogue(Dialogue):
    """A connection whose commands are lines."""

    PROTOCOL: str
    session: LineSession

    def __init__(self, connection: Connection, service: ClientService) -> None:
        limits = service.limits
        super().__init__(
            connection,
            LineSession(min(limits.max_line_bytes, PRE_LOGIN_LINE_OCTETS)),
            limits.login_timeout_s,
        )
        self.write_timeout_s = limits.write_timeout_s
        self.activity_counts = False  # until the login
        self.service = service
        self.login: Login | None = None
        self._failures = 0
        self._bad_commands = 0
        self._log: Log | None = None

    # --- what a protocol gives

    def run(self, line: bytes) -> Running:
        """Carry out one command line."""
        raise NotImplementedError

    def say_wrong(self, text: str, *, closing: bool) -> None:
        """A syntax error's reply, without its end if the connection ends with it."""
        raise NotImplementedError

    def challenge(self, octets: bytes) -> bytes:
        """A SASL challenge as a line of this protocol; `octets` is base64."""
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """For `murder ctl sessions`."""
        return {
            "protocol": self.PROTOCOL,
            "user": self.login.user if self.login else "",
            "address": self.connection.peer,
            "proxy": self.login.proxy if self.login else "",
            "idle_s": round(self.loop.time() - self.active_at, 1),
        }

    # --- the loop

    @property
    def log(self) -> Log:
        if self._log is None:
            self._log = logger(
                role=self.service.role,
                protocol=self.PROTOCOL,
                cid=self.connection.cid,
                peer=self.connection.peer,
            )
        return self._log

    def handle(self, event: Any) -> Running:
        if not isinstance(event, Line):
            raise Misuse(f"nobody waits for {type(event).__name__}")
        return self.run(event.octets)

    def hopeless(self, error: BadSyntax) -> None:
        self.log.info("connection.protocol_error", problem=str(error))
        self.say_wrong(str(error), closing=True)
        self.close()

    def malformed(self, error: BadSyntax) -> None:
        """Reply, log, and end it with who sends nothing else."""
        self.log.info("command.malformed", problem=str(error))
        self._bad_commands += 1
        is_last = self._bad_commands >= MAX_BAD_COMMANDS
        self.say_wrong(str(error), closing=is_last)
        if is_last:
            self.close()

    def understood(self) -> None:
        self._bad_commands = 0

    # --- TLS and SASL

    @property
    def may_start_tls(self) -> bool:
        return self.service.tls is not None and not self.connection.is_tls

    async def switch_to_tls(self, agreed: bytes) -> None:
        """Send the agreement and put TLS under the connection."""
        assert self.service.tls is not None
        self.session.take_rest()  # what came in plain text behind it was injected (CVE-2011-0411)
        self.send(agreed)
        try:
            await self.start_tls(self.service.tls)
        except OSError as error:
            self.log.info("tls.failed", problem=str(error))
            raise ConnectionResetError("no TLS") from error

    async def sasl(self, arguments: bytes) -> Login:
        """`mechanism [initial-response]`, to its end. Raises BadSyntax, Refusal, UpstreamFailure."""
        words = arguments.split()
        if not 1 <= len(words) <= 2:
            raise BadSyntax("AUTH takes a mechanism and maybe an initial response")
        initial = None
        if len(words) == 2:
            initial = b"" if words[1] == b"=" else decode_base64(words[1])

        async def ask(challenge: bytes) -> bytes:
            self.send(self.challenge(base64.b64encode(challenge)))
            event = await self.next_event(self.time_left_s)
            if not isinstance(event, Line) or event.octets.rstrip(b" \t") == b"*":
                raise BadSyntax("AUTH was cancelled")
            return decode_base64(event.octets)

        mechanism = words[0].decode("ascii", "replace").upper()
        login, final = await run_sasl(
            self.service.gate,
            mechanism,
            initial,
            ask,
            self.connection,
            self.PROTOCOL,
            self.service.server_name,
        )
        if final:
            await ask(final)
        return login

    def now_known(self) -> None:
        """The peer is somebody we work for: from here on only silence ends it, and its lines may be long."""
        limits = self.service.limits
        self.session.max_line = limits.max_line_bytes
        self.begin_time(limits.idle_timeout_s, activity_counts=True)
        self.connection.became_known()

    def entered(self, login: Login) -> None:
        """Somebody has logged in."""
        self.login = login
        self.now_known()
        self._log = self.log.bind(user=login.user)
        self.log.info(
            "login.succeeded", proxy=login.proxy, admin=login.is_admin, tls=self.connection.is_tls
        )

    def login_failed(self, user: str, problem: str) -> bool:
        """Count and log; whether it was once too often."""
        self._failures += 1
        self.log.info("login.failed", user=user, problem=problem)
        return self._failures >= self.service.max_failures
