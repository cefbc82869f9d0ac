"""Connections to backends: opened, logged in for a user, kept for the next one (RFC 8437 UNAUTHENTICATE).

A connection whose user has gone is unauthenticated and waits here. While it waits it must be silent: one that says
anything is given up. What it was for a user before, the backend has forgotten by its own word; nothing of it is kept here.

A Cyrus server (3.6) offers UNAUTHENTICATE to its administrators only, so its connections are for one user each: such a
one waits for the same user (a webmail's next click), with its mailbox left (UNSELECT, RFC 3691), unless something was said
on it that outlasts a mailbox (`ImapUpstream.outlasting`). On a new one nothing is sent behind AUTHENTICATE before its
answer: Cyrus loses what it has read behind one that succeeds, and takes a part of what came before for the next command.
"""

import asyncio
import base64
import functools
import re
from binascii import b2a_base64
from collections.abc import Iterable
from typing import Final, cast

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.protocol import IMAP
from murder.net.connection import Connection
from murder.net.outgoing.exchange import LASTING_PARTS, LASTING_WORDS, Client, Reply
from murder.net.outgoing.proving import CURES, GSSAPI, Proof, cure_of
from murder.net.outgoing.relay import ImapUpstream
from murder.net.outgoing.upstream import Address, Upstreams
from murder.session.sasl import plain_response
from murder.wire.token import string

UNAUTHENTICATE: Final = b"UNAUTHENTICATE"
UNSELECT: Final = b"UNSELECT"
SAME_USER_S: Final = 600.0  # of one login: a server looks at a user's groups then only
OUTLASTING: Final = re.compile(
    rb"(?i)" + b"|".join(LASTING_PARTS) + rb"|\b(?:" + b"|".join(LASTING_WORDS) + rb")\b"
)
TOLD: Final = b"CAPABILITY "
OURS: Final = b"X-XFER"  # backends of murder tell it
MAX_CAPABILITIES: Final = 16 * 1024  # octets; ours are 1 KiB, and each list that differs is kept


class Pool:
    """Unused connections of one worker, by address: at most `most` to each, none longer than `idle_s`; of those that wait
    for the same user again the oldest makes room."""

    def __init__(self, idle_s: float, most: int) -> None:
        self._idle_s = idle_s
        self._most = most
        self._waiting: dict[Address, list[ImapUpstream]] = {}
        # the oldest first
        self._users: dict[Address, dict[ImapUpstream, None]] = {}
        self._of_user: dict[tuple[Address, str], list[ImapUpstream]] = {}

    def configure(self, idle_s: float, most: int) -> None:
        """New limits, for connections that are given from now on."""
        self._idle_s, self._most = idle_s, most

    def __len__(self) -> int:
        return sum(map(len, (*self._waiting.values(), *self._users.values())))

    def take(self, address: Address) -> ImapUpstream | None:
        """The one that waits there since the shortest time."""
        waiting = self._waiting.get(address)
        if not waiting:
            return None
        upstream = waiting.pop()
        upstream.keeper = None
        if not waiting:
            del self._waiting[address]
        return upstream

    def take_of(self, address: Address, user: str) -> ImapUpstream | None:
        """Likewise one on which this user is in already."""
        waiting = self._of_user.get((address, user))
        if not waiting:
            return None
        upstream = waiting[-1]
        self.forget(upstream)
        return upstream

    def give(self, upstream: ImapUpstream, user: str = "") -> None:
        """Its user has gone: keep the connection if that can be, close it else; for the same `user` where it cannot forget
        them, and they have had nothing but a mailbox there."""
        address, capabilities = upstream.address, upstream.capabilities
        full = len(self._waiting.get(address, ())) >= self._most
        if UNAUTHENTICATE in capabilities:
            able, user, command = True, "", UNAUTHENTICATE
        else:
            able = bool(user) and upstream.outlasting is OUTLASTING and UNSELECT in capabilities
            able, command = able and upstream.passes_unsolicited and self._most > 0, UNSELECT
            able = able and upstream.loop.time() - upstream.entered_at < SAME_USER_S
        if full or not able or self._idle_s <= 0 or not upstream.is_at_rest:
            upstream.close()
            return
        upstream.client = NOBODY
        upstream.passes_unsolicited = False
        upstream.user = user
        tag = next(upstream.tags)
        upstream.ask_at_once(self, b"%s %s\r\n" % (tag, command), tag)

    def heard(self, upstream: ImapUpstream, line: bytes, failure: UpstreamFailure | None) -> None:
        """The answer to UNAUTHENTICATE, or UNSELECT."""
        if failure is not None or line.split(b" ", 2)[1].rstrip().upper() != b"OK":
            upstream.abandon()
            return
        if upstream.user:
            self._keep_for(upstream)
            return
        upstream.wait(self, self._idle_s)  # as `keep`
        waiting = self._waiting.get(upstream.address)
        if waiting is None:
            self._waiting[upstream.address] = [upstream]
        else:
            waiting.append(upstream)

    def keep(self, upstream: ImapUpstream) -> None:
        """One that is nobody's waits (again)."""
        upstream.wait(self, self._idle_s)
        self._waiting.setdefault(upstream.address, []).append(upstream)

    def _keep_for(self, upstream: ImapUpstream) -> None:
        address, user = upstream.address, upstream.user
        others = self._users.setdefault(address, {})
        if len(others) >= self._most:
            next(iter(others)).close()
            others = self._users.setdefault(address, {})
        upstream.wait(self, self._idle_s)
        others[upstream] = None
        self._of_user.setdefault((address, user), []).append(upstream)

    def forget(self, upstream: ImapUpstream) -> None:
        """It does not wait any more."""
        upstream.keeper = None
        if upstream.user:
            address, key = upstream.address, (upstream.address, upstream.user)
            del self._users[address][upstream]
            self._of_user[key].remove(upstream)
            if not self._users[address]:
                del self._users[address]
            if not self._of_user[key]:
                del self._of_user[key]
            return
        waiting = self._waiting[upstream.address]
        waiting.remove(upstream)
        if not waiting:
            del self._waiting[upstream.address]

    def close(self) -> None:
        """All of them."""
        for waiting in (*self._waiting.values(), *self._users.values()):
            for upstream in list(waiting):
                upstream.close()


class _Nowhere:
    """The connection of nobody."""

    writing_paused = False

    def write(self, data: bytes) -> None:
        pass


class _Nobody(Client):
    """Whom a connection serves between two users. Nothing passes: see `ImapUpstream.passes_unsolicited`."""

    connection = cast(Connection, _Nowhere())


NOBODY: Final = _Nobody()


async def open_imap(
    upstreams: Upstreams,
    server: str,
    client: Client,
    *,
    user: str,
    password: bytes | None,
    identity: Iterable[tuple[str, str]],
    timeout_s: float,
    max_message: int,
    pool: Pool | None = None,
) -> ImapUpstream:
    """Connect, TLS, ID, log in for the user: EXTERNAL by this node's certificate, or PLAIN as the proxy user; with
    `password` as the user (an administrator). One that waits in the pool is connected already. Raises
    UpstreamFailure."""
    address = upstreams.address(server, IMAP)
    while pool is not None and (waiting := pool.take(address)) is not None:
        waiting.serve(client, timeout_s, max_message)
        try:
            async with upstreams.entering(server):
                await _log_in(upstreams, waiting, user, password, identity)
        except BaseException as error:
            waiting.abandon()
            if isinstance(error, UpstreamFailure) and error.kind is UpstreamKind.LOST:
                continue  # it closed the connection just now
            raise
        return waiting
    upstream = ImapUpstream(address, client, timeout_s, max_message)

    def receiver(connection: Connection) -> ImapUpstream:
        upstream.connection = connection
        upstream.expect_greeting()
        return upstream

    await upstreams.open_connection(address, receiver, client.origin)
    try:
        async with upstreams.entering(server):
            await _greet(upstreams, upstream)
            await _log_in(upstreams, upstream, user, password, identity)
    except BaseException:
        upstream.abandon()
        raise
    return upstream


class NoClient(Client):
    """Nobody stands behind a connection: this node asks for itself."""


async def open_as_node(
    upstreams: Upstreams, server: str, *, name: str, timeout_s: float, max_message: int
) -> ImapUpstream:
    """Connect, and log in as this node; `name` is what it calls itself in ID. Raises UpstreamFailure."""
    return await open_imap(
        upstreams,
        server,
        NoClient(),
        user="",
        password=None,
        identity=[("name", name)],
        timeout_s=timeout_s,
        max_message=max_message,
    )


async def _greet(upstreams: Upstreams, upstream: ImapUpstream) -> None:
    greeting = await upstream.greeted()
    if greeting is not None and greeting.word not in (b"OK", b"PREAUTH"):
        raise upstream.failure(UpstreamKind.UNAVAILABLE, f"it greets with {greeting.text}")
    if greeting is not None:
        upstreams.met(upstream.address.server, greeting.text)
    address = upstream.address
    if address.tls == "starttls":
        upstream.awaits_tls = True
        if not (await upstream.execute(b"STARTTLS")).is_ok:
            raise upstream.failure(UpstreamKind.TLS, "it refuses STARTTLS")
        if upstream.is_lost:
            raise upstream.failure(
                UpstreamKind.PROTOCOL, "it sent octets behind its answer to STARTTLS"
            )
        await upstreams.starttls(upstream.connection, address)
        upstream.awaits_tls = False


async def _log_in(
    upstreams: Upstreams,
    upstream: ImapUpstream,
    user: str,
    password: bytes | None,
    identity: Iterable[tuple[str, str]],
) -> None:
    address = upstream.address
    fields = b" ".join(string(word.encode()) for pair in identity for word in pair)
    upstream.connection.gather(upstream.next_tag() + b" ID (" + fields + b")\r\n")
    if password is None and address.auth == GSSAPI:
        reply = await _prove(upstream, upstreams.proof(address, user))
    elif password is None:
        reply = await upstream.execute(proxy_login(address, user))
    else:
        if not upstream.connection.is_tls and address.tls != "none":
            raise upstream.failure(UpstreamKind.TLS, "no password is sent without TLS")
        secret = plain_response("", user, password)
        reply = await upstream.execute(b"AUTHENTICATE PLAIN " + base64.b64encode(secret))
    if not reply.is_ok:
        cure = cure_of(CURES.get(address.auth, ""), reply.octets) if password is None else ""
        raise upstream.failure(UpstreamKind.AUTH, f"it refuses our login: {reply.text}", cure)
    words = reply.code
    if not words.startswith(TOLD):
        answer = await upstream.execute(b"CAPABILITY")
        lines = (line[2:] for line in answer.untagged)
        words = next((line for line in lines if line.startswith(TOLD)), b"")
    if len(words) > MAX_CAPABILITIES:
        raise upstream.failure(UpstreamKind.PROTOCOL, f"capabilities of {len(words)} octets")
    upstream.capabilities = capabilities_of(words)
    upstream.holds_answers_back = OURS not in upstream.capabilities
    if UNAUTHENTICATE not in upstream.capabilities:
        upstream.outlasting, upstream.entered_at = OUTLASTING, upstream.loop.time()


async def _prove(upstream: ImapUpstream, proof: Proof) -> Reply:
    """AUTHENTICATE in several steps. Raises UpstreamFailure."""
    tag = upstream.next_tag()

    async def reply(challenge: bytes) -> None:
        try:
            upstream.write(await proof.reply(challenge) + b"\r\n")
        except ValueError:
            text = "a challenge that is not base64"
            raise upstream.failure(UpstreamKind.PROTOCOL, text) from None

    try:
        async with asyncio.TaskGroup() as group:

            def hear(response: bytes) -> None:
                if response.startswith(b"+"):
                    group.create_task(reply(response[1:]))

            upstream.write(tag + b" AUTHENTICATE " + proof.mechanism + proof.first + b"\r\n")
            answer = await upstream.answer(tag, hear)
    except* UpstreamFailure as failures:
        failure = failures.exceptions[0]
    else:
        return answer
    raise failure


def proxy_login(address: Address, user: str) -> bytes:
    """The command by which a proxy is in as a user, without tag and line end, where one is enough."""
    if address.auth == "external":
        return b"AUTHENTICATE EXTERNAL " + (b2a_base64(user.encode(), newline=False) or b"=")
    secret = plain_response(user, address.proxy_user, address.proxy_password.encode())
    return b"AUTHENTICATE PLAIN " + b2a_base64(secret, newline=False)


@functools.lru_cache(maxsize=16)  # a backend says the same at every login
def capabilities_of(words: bytes) -> frozenset[bytes]:
    return frozenset(words.upper().split()[1:])
