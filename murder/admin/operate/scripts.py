"""A user's Sieve scripts, as the backend of their INBOX keeps them: by ManageSieve, the operator acting for the user. What
is changed is checked there, and durable when it says OK.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from murder.admin.operate.reach import TIMEOUT_S, Credential, Reach
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import inbox_of
from murder.model.protocol import SIEVE
from murder.net.outgoing.lines import LineUpstream, open_lines
from murder.net.outgoing.managesieve import Answer, begin, enter, execute
from murder.net.outgoing.proving import by_password
from murder.net.outgoing.upstream import Upstreams
from murder.wire.managesieve import (
    Kind,
    client_string,
    parse_faults,
    parse_script_line,
    parse_string_line,
)
from murder.wire.managesieve import (
    ScriptFault as ScriptFault,
)

MAX_ANSWER: Final = 16 * 1024 * 1024  # octets; a script has 1 MiB at most where it was made
CODES: Final[Mapping[bytes, Code]] = {
    b"ALREADYEXISTS": Code.ALREADY_EXISTS,
    b"NONEXISTENT": Code.NONEXISTENT,
    b"QUOTA": Code.OVER_QUOTA,
    b"QUOTA/MAXSIZE": Code.TOO_BIG,
    b"QUOTA/MAXSCRIPTS": Code.LIMIT,
    b"TRYLATER": Code.UNAVAILABLE,
}


class WrongScript(Refusal):
    """A server does not take a script: all that it says of it."""

    def __init__(self, server: str, faults: Sequence[ScriptFault]) -> None:
        super().__init__(Code.CANNOT, "\n".join((f"{server} does not take it:", *map(str, faults))))
        self.faults = faults


class UserScripts:
    """The scripts of one user. Everything raises Refusal with the server's own words, and UpstreamFailure."""

    def __init__(self, upstream: LineUpstream, user: str, understood: Sequence[str]) -> None:
        self._upstream = upstream
        self.user = user
        self.server = upstream.server
        self.understood = understood  # what scripts may require there

    async def all(self) -> list[tuple[str, bool]]:
        """Names, and which is active."""
        answer = await self._execute(b"LISTSCRIPTS")
        try:
            return [parse_script_line(line) for line in answer.lines]
        except BadSyntax as error:
            raise self._upstream.failure(UpstreamKind.PROTOCOL, str(error)) from error

    async def read(self, name: str) -> bytes:
        answer = await self._execute(b"GETSCRIPT", _octets(name))
        try:
            return parse_string_line(answer.lines[0] if answer.lines else b"")
        except BadSyntax as error:
            raise self._upstream.failure(UpstreamKind.PROTOCOL, str(error)) from error

    async def put(self, name: str, script: bytes) -> list[ScriptFault]:
        """Returns the warnings. Raises WrongScript."""
        answer = await self._ask(b"PUTSCRIPT", _octets(name), script)
        if answer.status.kind is not Kind.OK and not answer.status.code:
            raise WrongScript(self.server, faults_in(answer.text))
        self._check(answer)
        return faults_in(answer.text) if answer.status.code == b"WARNINGS" else []

    async def activate(self, name: str) -> None:
        """From now on; "": none."""
        await self._execute(b"SETACTIVE", _octets(name))

    async def delete(self, name: str) -> None:
        await self._execute(b"DELETESCRIPT", _octets(name))

    async def _execute(self, word: bytes, *arguments: bytes) -> Answer:
        answer = await self._ask(word, *arguments)
        self._check(answer)
        return answer

    async def _ask(self, word: bytes, *arguments: bytes) -> Answer:
        command = b" ".join((word, *map(client_string, arguments))) + b"\r\n"
        return await execute(self._upstream, command, MAX_ANSWER)

    def _check(self, answer: Answer) -> None:
        if answer.status.kind is not Kind.OK:
            code = CODES.get(answer.status.code, Code.CANNOT)
            text = answer.text or "it says NO"
            raise Refusal(code, f"{self.server}: {text}")


@asynccontextmanager
async def scripts_of(reach: Reach, user: str) -> AsyncIterator[UserScripts]:
    """At the backend of the user's INBOX. Raises Refusal where there is none, UpstreamFailure."""
    reach.check_user(user)
    entry = await reach.find(inbox_of(user))
    if not entry.is_active:
        raise Refusal(Code.UNAVAILABLE, f"The INBOX of {user} is just being made or moved")
    upstreams = reach.upstreams
    upstream = await open_lines(upstreams, entry.server, SIEVE, TIMEOUT_S, None)
    upstream.reads_slowly = True
    try:
        async with upstreams.entering(entry.server):
            capabilities = await begin(upstreams, upstream)
            await _enter(reach.credential, upstreams, upstream, user)
        words = capabilities.get(b"SIEVE", b"").decode("utf-8", "replace").split()
        yield UserScripts(upstream, user, words)
        upstream.send(b"LOGOUT\r\n")
    finally:
        upstream.close()


async def _enter(
    credential: Credential, upstreams: Upstreams, upstream: LineUpstream, user: str
) -> None:
    """By certificate, or by the password of somebody who may act for users there."""
    proof = upstreams.proof(upstream.address, user)
    if credential.password is not None:
        if upstream.address.tls == "none":
            raise upstream.failure(UpstreamKind.TLS, "no password is sent without TLS")
        proof = by_password(user, credential.user, credential.password)
    try:
        await enter(upstream, proof)
    except UpstreamFailure as failure:
        if credential.password is None or failure.kind is not UpstreamKind.AUTH:
            raise
        text = (
            f"{upstream.server} does not let {credential.user} act for {user}\n"
            f"use an operator's certificate, or name {credential.user} in [auth] masters there"
        )
        raise Refusal(Code.AUTHORIZATION_FAILED, text) from failure


def faults_in(text: str) -> list[ScriptFault]:
    """Of a server's words: never nothing."""
    return parse_faults(text) or [ScriptFault(0, 0, "it does not say why")]


def _octets(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
