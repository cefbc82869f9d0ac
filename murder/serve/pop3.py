"""POP3 before and at login, shared by frontend and backend (RFC 1939 §4, RFC 2449, RFC 2595, RFC 5034).

Every error of the session becomes its reply in `Pop3Dialogue.failed`, with the response codes of RFC 2449 and RFC 3206.
"""

from typing import Any, ClassVar, Final

from murder import __version__
from murder.auth.gate import NotAdmitted, as_given
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.identity import Login
from murder.model.name import MailboxName, Namespace, inbox_of
from murder.model.sasl import PlainCredentials
from murder.serve.client import Running
from murder.serve.line import ANY, STRANGER, LineDialogue, Row, Table
from murder.wire import mutf7
from murder.wire.pop3 import err, listing, ok, parse_command

PASSWORD_WANTED: Final = ok("Now the password")
CODES: Final = {  # a refusal's code in POP3
    Code.AUTHENTICATION_FAILED: "AUTH",
    Code.AUTHORIZATION_FAILED: "AUTH",
    Code.EXPIRED: "AUTH",
    Code.IN_USE: "IN-USE",
    Code.OVER_QUOTA: "SYS/TEMP",
    Code.UNAVAILABLE: "SYS/TEMP",
    Code.NO_PERMISSION: "SYS/PERM",
    Code.NONEXISTENT: "SYS/PERM",
    Code.CONTACT_ADMIN: "SYS/PERM",
}


class Pop3Dialogue(LineDialogue):
    """A POP3 connection up to its login."""

    protocol = "pop3"
    _user: bytes | None = None  # as given with USER
    utf8 = False  # as the client has asked (RFC 6856)

    # --- what a role gives

    @property
    def offers_utf8(self) -> bool:
        """Whether UTF8 (RFC 6856) works here."""
        return False

    async def open_maildrop(self, login: Login) -> bytes:
        """Somebody has proven who they are: open their maildrop; the reply. Raises Refusal, UpstreamFailure."""
        raise NotImplementedError

    def maildrop_of(self, login: Login, namespace: Namespace) -> MailboxName:
        """The user's INBOX, or with `user+Folder` that mailbox of theirs (as Cyrus' popsubfolders). Raises Refusal."""
        if not login.detail:
            return inbox_of(login.user)
        prefix = namespace.personal_prefix + mutf7.encode(login.detail)
        return namespace.internal(prefix, login.user)

    # --- greeting, errors, the end

    def greet(self) -> None:
        connection, kept, gate = self.connection, self.service.greetings, self.service.gate
        # Dovecot looks there for it
        mark = bool(gate.client_address_from or connection.certificate) and self.may_tell_client
        key = (self.protocol, mark, False)
        greeting = kept.get(key)
        if greeting is None:
            text = f"{self.service.server_name} murder {__version__} POP3 ready"
            greeting = kept[key] = ok(f"[XCLIENT] {text}" if mark else text)
        if connection.is_plain:
            connection.transport.write(greeting)
        else:
            connection.write(greeting)

    def say_wrong(self, text: str, *, closing: bool) -> None:
        self.send(err(text))

    def challenge(self, octets: bytes) -> bytes:
        return b"+ " + octets + b"\r\n"

    def timed_out(self) -> None:
        """RFC 1939 §3: without a word of the UPDATE state, and nothing is deleted."""
        self.send(err("Autologout; idle for too long", "SYS/TEMP"))
        self.close()

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """-ERR with a code (RFC 2449 §8), and the end."""
        self.send(err(text, CODES[code]))
        self.close()

    def failed(self, event: Any, error: Exception) -> None:
        match error:
            case BadSyntax():
                self.malformed(error)
            case Refusal():
                self.send(err(error.text, CODES.get(error.code, "")))
            case UpstreamFailure():
                self.note_failure(error)
                self.send(err("Your mailbox cannot be reached now, try again later", "SYS/TEMP"))
            case TimeoutError():
                self.timed_out()
            case _:
                self.note_failure(error)
                self.send(err("Internal error, try again later", "SYS/TEMP"))

    # --- commands

    def cut(self, line: bytes) -> tuple[bytes, bytes]:
        return parse_command(line)

    def not_allowed(self, keyword: bytes, row: Row | None) -> Running:
        when = "before" if self.login is None else "after"
        raise BadSyntax(f"no command of this server, or not {when} login")

    def _leave(self, arguments: bytes) -> Running:
        self.send(ok("Goodbye"))
        self.close()
        return None

    def tell_capabilities(self) -> Running:
        """CAPA (RFC 2449 §5)."""
        self.send(listing("Capabilities", self._capabilities()))
        return None

    def _capabilities(self) -> list[bytes]:
        words = [b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE"]
        gate = self.service.gate
        if gate.takes_passwords(self.connection):
            words.append(b"USER")
        mechanisms = gate.mechanisms(self.connection, self.protocol)
        if mechanisms:
            words.append(b"SASL " + " ".join(mechanisms).encode())
        if self.login is None and self.may_start_tls:
            words.append(b"STLS")
        if self.offers_utf8:
            words.append(b"UTF8 USER" if b"USER" in words else b"UTF8")
        if self.may_tell_client:
            words.append(b"XCLIENT")
        words.append(b"IMPLEMENTATION murder-" + __version__.encode())
        suppressed = {word.upper().encode() for word in self.service.limits.suppress_capabilities}
        return [word for word in words if word.partition(b" ")[0] not in suppressed]

    def _take_user(self, arguments: bytes) -> None:
        name = arguments.rstrip(b" \t")
        if not name:
            raise BadSyntax("USER takes a name")
        if not self.service.gate.takes_passwords(self.connection):
            raise Refusal(
                Code.PRIVACY_REQUIRED, "A password is accepted only under TLS: use STLS first"
            )
        self._user = name
        self.send(PASSWORD_WANTED)

    async def _pass(self, arguments: bytes) -> None:
        if self._user is None:
            raise BadSyntax("USER comes before PASS")
        user, self._user = self._user.decode("utf-8", "surrogateescape"), None
        given = PlainCredentials(user, "", arguments, "USER")
        try:
            login = await self.service.gate.admit(given, self.connection, self.protocol)
        except Refusal as refusal:
            self._refuse(as_given(user), refusal)
            return
        await self._enter(login)

    async def _auth(self, arguments: bytes) -> None:
        if not arguments:  # RFC 1734's listing, which some clients still ask for
            names = self.service.gate.mechanisms(self.connection, self.protocol)
            self.send(listing("Mechanisms", [name.encode() for name in names]))
            return
        try:
            login = await self.authenticate(arguments)
        except NotAdmitted as refusal:
            self._refuse(refusal.user, refusal)
            return
        await self._enter(login)

    def _refuse(self, user: str, refusal: Refusal) -> None:
        is_worn_out = self.login_failed(user, refusal.code.value)
        self.send(err(refusal.text, CODES.get(refusal.code, "")))
        if is_worn_out:
            self.close()

    async def _enter(self, login: Login) -> None:
        if self.is_for_within(login):
            heir = self.pass_on()
            heir.utf8 = self.utf8
            heir.go_on(None, heir._enter(login))
            return
        try:
            self.count_in(login)
        except Refusal as refusal:
            self.log_not_served(login, refusal)
            self.send(err(refusal.text, "SYS/TEMP"))
            self.close()
            return
        entered = False
        try:
            answer = await self.open_maildrop(login)
            entered = answer.startswith(b"+") and not self.connection.is_lost
        except Refusal as refusal:
            self.log_not_served(login, refusal)
            raise
        finally:
            if not entered:
                self.count_out()
        if entered:
            self.entered(login)
            self.understood()
        self.send(answer)

    def _begin_utf8(self, arguments: bytes) -> None:
        """RFC 6856 §2. It changes nothing of what we send: see `murder.roles.backend.pop3`."""
        if arguments:
            raise BadSyntax("UTF8 takes no arguments")
        if self.utf8:
            raise Refusal(Code.CANNOT, "UTF8 is enabled already")
        self.utf8 = True
        self.send(ok("UTF8 enabled"))

    def _xclient(self, arguments: bytes) -> None:
        self.take_xclient(arguments.split())
        self.send(ok("Updated"))

    def _stls(self, arguments: bytes) -> Running:
        if not self.may_start_tls:
            raise Refusal(Code.CANNOT, "No TLS here, or it is active already")
        if self.utf8:
            raise Refusal(Code.CANNOT, "STLS comes before UTF8")  # RFC 6856 §2.1
        self._user = None
        return self.switch_to_tls(ok("Begin TLS now"))

    TABLE: ClassVar[Table] = {
        b"CAPA": Row(ANY, lambda dialogue, arguments: dialogue.tell_capabilities()),
        b"QUIT": Row(STRANGER, _leave),
        b"USER": Row(STRANGER, _take_user),
        b"PASS": Row(STRANGER, _pass),
        b"AUTH": Row(STRANGER, _auth),
        b"STLS": Row(STRANGER, _stls),
        b"XCLIENT": Row(STRANGER, _xclient, offered=lambda dialogue: dialogue.may_tell_client),
        b"UTF8": Row(STRANGER, _begin_utf8, offered=lambda dialogue: dialogue.offers_utf8),
    }
