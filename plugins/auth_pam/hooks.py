"""The plugin's settings, its hook, and the helpers."""

import asyncio
import logging
import pkgutil
import struct
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from murder.api import Denied, Fault, Identity, LoginAttempt, hookimpl
from murder.errors import Code, Misuse, Refusal, UpstreamFailure, UpstreamKind

SERVER: Final = "PAM"
log = logging.getLogger("murder.plugins.auth_pam")
IN_ITS_LOG: Final = "its modules say more in the log (auth.log)"
MAX_OCTETS: Final = 512  # of a name or a password: more PAM does not take
FORBIDDEN: Final = frozenset(' /%*"\\\0')


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_pam]."""

    service: str = field(
        default="",
        metadata={"doc": "PAM's service, a file in /etc/pam.d; empty: the protocol, pop for POP3."},
    )
    folder: Path | None = field(
        default=None, metadata={"doc": "A folder with such files in place of /etc/pam.d."}
    )
    helpers: int = field(
        default=4, metadata={"doc": "Questions at a time, in each process.", "least": 1}
    )
    timeout_s: float = field(default=10.0, metadata={"doc": "Waiting for an answer."})
    lower_case: bool = field(
        default=True, metadata={"doc": "User names are taken in lower case, as Cyrus does."}
    )

    def __post_init__(self) -> None:
        if "/" in self.service or not self.service.isascii():
            raise ValueError("service is the name of a file in /etc/pam.d, without a folder")


@hookimpl
def make_auth_backend(settings: Settings) -> "Pam":
    """The backend for one process."""
    return Pam(settings)


def format_question(*fields: bytes) -> bytes:
    """What a helper reads."""
    return b"".join(struct.pack(">H", len(octets)) + octets for octets in fields)


class Pam:
    """Fulfils AuthBackend, BelievesAnybody, ChecksAttempts, ChecksFewAtOnce, Diagnoses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        source = pkgutil.get_data("plugins.auth_pam", "child.py")
        if source is None:
            raise Misuse("the source of the PAM helper is missing")
        self._source = source.decode("utf-8")
        self._idle: list[asyncio.subprocess.Process] = []
        self._loop: object = None
        self._missing: set[str] = set()  # services without a file, that were told

    @property
    def checks_at_once(self) -> int:
        """See ChecksFewAtOnce."""
        return self._settings.helpers

    @property
    def believes_anybody(self) -> bool:
        """See BelievesAnybody."""
        return True

    @property
    def depends_on(self) -> Collection[str]:
        """See ChecksAttempts: PAM's modules may look at the address."""
        return ("address",) if self._settings.service else ("address", "protocol")

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts."""
        name = user.lower() if self._settings.lower_case else user
        octets = name.encode("utf-8", "surrogateescape")
        is_fit = 0 < len(octets) < MAX_OCTETS and FORBIDDEN.isdisjoint(name) and name[0] != "-"
        if not is_fit or not 0 < len(password) < MAX_OCTETS or b"\0" in password:
            return Denied.UNKNOWN
        service = self._service(attempt)
        answer = await self._ask(service, octets, password, attempt.address)
        word, _, text = answer.partition(" ")
        if word in ("WRONG", "UNKNOWN"):
            await self._tell_missing(service)
        match word:
            case "OK":
                return Identity(text.lower() if self._settings.lower_case else text)
            case "WRONG":
                return Denied.WRONG
            case "UNKNOWN":
                return Denied.UNKNOWN
            case "DENIED":
                raise Refusal(Code.CONTACT_ADMIN, text)
        cure = self._cure(service)
        raise UpstreamFailure(UpstreamKind.AUTH_TEMPORARY, SERVER, text or "no answer", cure)

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend."""
        answer = await self.check(LoginAttempt("imap", "", "", False), user, password)
        return answer if isinstance(answer, Identity) else None

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend. PAM has no such question: whoever is vouched for is believed to be there."""
        return Identity(user.lower() if self._settings.lower_case else user)

    async def diagnose(self) -> Sequence[Fault]:
        """See Diagnoses: whether PAM answers about somebody whom there cannot be."""
        service = self._service(LoginAttempt("imap", "", "", False))
        file = self._file(service)
        if not await asyncio.to_thread(file.exists):
            what = f"{file} is missing: PAM's `other` rules, which mostly deny"
            return [Fault(what, "write it, or set plugins.auth_pam.service to one that there is")]
        try:
            answer = await self._ask(service, b"murder-looks", b"x", "")
        except UpstreamFailure as failure:
            return [Fault(f"PAM: {failure.problem}", failure.cure)]
        if answer.startswith("AWAY"):
            return [Fault(f"PAM, service {service}: {answer[5:]}", self._cure(service))]
        return []

    async def _tell_missing(self, service: str) -> None:
        """Once of each protocol: whoever comes by it hears that their password is wrong."""
        file = self._file(service)
        if service not in self._missing and not await asyncio.to_thread(file.exists):
            self._missing.add(service)
            log.warning(
                "%s is missing, so PAM's `other` rules have decided, which mostly deny; write it, or set "
                "plugins.auth_pam.service to one that there is",
                file,
            )

    def _file(self, service: str) -> Path:
        return (self._settings.folder or Path("/etc/pam.d")) / service

    def _cure(self, service: str) -> str:
        return f"look at {self._file(service)}: are it and its modules there, may the node's user read their files?"

    def _service(self, attempt: LoginAttempt) -> str:
        service = {"pop3": "pop", "managesieve": "sieve"}.get(attempt.protocol, attempt.protocol)
        return self._settings.service or service or "imap"

    async def _ask(self, service: str, user: bytes, password: bytes, address: str) -> str:
        folder = str(self._settings.folder or "").encode()
        question = format_question(service.encode(), user, password, address.encode(), folder)
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._idle = asyncio.get_running_loop(), []
        helper = self._idle.pop() if self._idle else await self._begin()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                assert helper.stdin is not None and helper.stdout is not None
                helper.stdin.write(question)
                await helper.stdin.drain()
                line = await helper.stdout.readline()
        except BaseException as error:
            _end(helper)
            if isinstance(error, TimeoutError):
                text = f"no answer in {self._settings.timeout_s:g} s"
                cure = f"a module of {self._file(service)} waits for something: the log (auth.log) may say for what"
                raise UpstreamFailure(UpstreamKind.TIMEOUT, SERVER, text, cure) from None
            if isinstance(error, OSError):
                text = f"its helper ended ({error})"
                raise UpstreamFailure(UpstreamKind.LOST, SERVER, text, IN_ITS_LOG) from None
            raise
        if not line.endswith(b"\n"):
            _end(helper)
            raise UpstreamFailure(UpstreamKind.LOST, SERVER, "its helper ended", IN_ITS_LOG)
        self._idle.append(helper)
        return line.decode("utf-8", "replace").rstrip("\n")

    async def _begin(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", self._source),
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,
        )


def _end(helper: asyncio.subprocess.Process) -> None:
    if helper.returncode is None:
        helper.kill()
