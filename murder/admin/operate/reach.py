"""The master and the backends of a murder, as an operator reaches them: by their certificate, or by a password.

Addresses are those of `[servers]` and `[mupdate] master`, as on every node.
"""

import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from murder.config import Config, ConfigError, Problem
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, Namespace, display
from murder.net.frames import FrameChannel
from murder.net.outgoing.connect import why
from murder.net.outgoing.exchange import Reply
from murder.net.outgoing.pool import NoClient, open_imap
from murder.net.outgoing.relay import ImapUpstream
from murder.net.outgoing.upstream import Upstreams
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import Target, master_target
from murder.wire import mutf7

TIMEOUT_S: Final = 60.0
# a backend may have to be waited for that reads no faster than it was told to
FRAME_TIMEOUT_S: Final = 300.0
MAX_MESSAGE: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Credential:
    """Who the operator is at a backend: a certificate (then `user` is only its name), or an administrator's password."""

    user: str = ""
    password: str | None = field(default=None, repr=False)


class Reach:
    """One a command. Connections are opened on first use and kept until `close`."""

    def __init__(self, config: Config, ask_password: Callable[[str], str]) -> None:
        check_files(config)
        operator = config.operator
        if operator.certificate is not None:
            tls = replace(config.tls, certificate=operator.certificate, key=operator.key)
            config = replace(config, tls=tls)
            self.credential = Credential()
        elif operator.user:
            password = operator.password or ask_password(operator.user)
            self.credential = Credential(operator.user, password)
        else:
            self.credential = Credential()  # the operator's own murder.toml: [tls] says who
        self.config = config
        self.namespace: Namespace = config.namespace.namespace()
        self.learned: Sequence[str] | None = None  # nodes that nobody had to name (operate.nodes)
        self.tls_names: dict[str, str] = {}  # of those, what each certificate must carry, by place
        # told who is waited for; None: nobody looks
        self.notice: Callable[[str], None] | None = None
        self.upstreams = Upstreams(config)
        self._open: dict[tuple[str, str], ImapUpstream] = {}
        self._master: MasterClient | None = None

    async def close(self) -> None:
        for upstream in self._open.values():
            upstream.close()
        if self._master is not None:
            await self._master.close()

    # --- the master

    @property
    def target(self) -> Target:
        """Raises Refusal where the configuration names no master."""
        target = master_target(self.config)
        if target is None:
            raise Refusal(
                Code.CANNOT,
                f"{self.config.file}: [mupdate] master is missing: whose list is meant?",
            )
        password = self.credential.password
        if password is not None and not target.user:
            target = replace(target, user=self.credential.user, password=password)
        return target

    @property
    def master(self) -> MasterClient:
        """Raises Refusal."""
        if self._master is None:
            self._master = MasterClient(self.target)
        return self._master

    async def find(self, name: MailboxName) -> MailboxEntry:
        """The row of a mailbox. Raises Refusal(NONEXISTENT), UpstreamFailure."""
        entry = await self.master.find(name)
        if entry is None:
            raise Refusal(
                Code.NONEXISTENT,
                f"The master knows no mailbox {self.shown(name)} ({display(name)})",
            )
        return entry

    async def rows(self) -> list[MailboxEntry]:
        """The master's whole list. Raises UpstreamFailure."""
        return await self.master.list_all()

    async def heads(self) -> list[MailboxEntry]:
        """The same without access lists, of which there may be gigabytes. Raises UpstreamFailure."""
        return await self.master.list_all(acls=False)

    def tls_context(self) -> ssl.SSLContext:
        """As the operator, to any node. Raises OSError, ssl.SSLError."""
        return self.upstreams.context()

    # --- names

    def check_user(self, user: str) -> None:
        """Raises Refusal for a name that nobody can log in by."""
        local, mark, domain = user.partition("@")
        if mark and not self.config.namespace.domains:
            raise Refusal(
                Code.CANNOT,
                f"{user}: [namespace] domains is false in {self.config.file}: users are known without @{domain}, and "
                f"nobody could use such a mailbox\nname {local}; or, where users are user@domain, set domains = true "
                "here as on all nodes",
            )

    def name(self, external: str) -> MailboxName:
        """A name as administrators write it: `user/anna/Sub`. Raises Refusal."""
        octets = external.encode("utf-8", "surrogateescape")
        if not octets.isascii():
            octets = mutf7.encode(external)
        return self.namespace.internal(octets, "")

    def shown(self, name: MailboxName) -> str:
        """The reverse, for people."""
        return mutf7.decode_leniently(self.namespace.external(name, ""))

    def external(self, name: MailboxName) -> bytes:
        return self.namespace.external(name, "")

    # --- backends

    async def backend(self, server: str, user: str = "") -> ImapUpstream:
        """A connection as administrator, or as a user for whom the operator acts. Raises UpstreamFailure."""
        key = (server, user)
        connection = self._open.get(key)
        if connection is not None and not connection.is_lost:
            return connection
        password = self.credential.password
        opened = await open_imap(
            self.upstreams,
            server,
            NoClient(),
            user=user or (self.credential.user if password is not None else ""),
            password=password.encode() if password is not None and not user else None,
            identity=[("name", "murder ctl")],
            timeout_s=TIMEOUT_S,
            max_message=MAX_MESSAGE,
        )
        self._open[key] = opened
        return opened

    async def frames(self, server: str, command: bytes) -> FrameChannel:
        """A connection of its own as administrator, taken over for frames by this command. Raises Refusal,
        UpstreamFailure."""
        upstream = await self.backend(server)
        self._open.pop((server, ""), None)
        reply = await upstream.execute(command)
        if not reply.is_ok:
            upstream.close()
            check(server, reply)
        if upstream.is_lost:
            raise UpstreamFailure(UpstreamKind.LOST, server, "it closed the connection")
        return FrameChannel(upstream.connection, server, FRAME_TIMEOUT_S, of_answers=True)

    async def execute(
        self,
        server: str,
        command: bytes,
        *,
        user: str = "",
        untagged: Callable[[bytes], None] | None = None,
    ) -> Reply:
        """One IMAP command at a backend. Raises Refusal where it says NO or BAD, UpstreamFailure."""
        upstream = await self.backend(server, user)
        upstream.has_no_hurry = untagged is not None  # a move takes its time, and tells
        reply = await upstream.execute(command, untagged=untagged)
        check(server, reply)
        return reply


def is_of_master(config: Config, failure: UpstreamFailure) -> bool:
    """Whether it is the master, or one of several, that cannot be reached."""
    if failure.kind not in (UpstreamKind.CONNECT, UpstreamKind.TIMEOUT, UpstreamKind.RESOLVE):
        return False
    master = config.master
    places = () if master is None else (master, *master.others)
    return failure.server in {f"{place.host}:{place.port}" for place in places}


def check(server: str, reply: Reply) -> None:
    """Raises Refusal with the server's own words."""
    if reply.is_ok:
        return
    word = reply.code.split(b" ", 1)[0].decode("ascii", "replace").upper()
    try:
        code = Code(word)
    except ValueError:
        code = Code.NONE
    raise Refusal(code, f"{server}: {reply.text}")


def check_files(config: Config) -> None:
    """The files that say who the operator is, and whom they trust, can be read. Raises ConfigError with the key."""
    problems = []
    operator = config.operator
    whose = {"tls.ca": config.tls.ca}
    if operator.certificate is not None:
        whose |= {"operator.certificate": operator.certificate, "operator.key": operator.key}
    elif not operator.user:
        whose |= {"tls.certificate": config.tls.certificate, "tls.key": config.tls.key}
    for key, path in whose.items():
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as error:
            problems.append(Problem(config.file, key, f"{path}: {why(error)}"))
    if problems:
        raise ConfigError(problems)


_DATA: Final = re.compile(rb"^\* ([A-Za-z-]+) ", re.ASCII)


def data_of(reply: Reply, word: bytes) -> list[bytes]:
    """What follows `* WORD ` in each such untagged response."""
    lines = []
    for line in reply.untagged:
        match = _DATA.match(line)
        if match is not None and match.group(1).upper() == word:
            lines.append(line[match.end() :].rstrip(b"\r\n"))
    return lines


@asynccontextmanager
async def reaching(config: Config, ask_password: Callable[[str], str]) -> AsyncIterator[Reach]:
    """A Reach, closed in the end."""
    reach = Reach(config, ask_password)
    try:
        yield reach
    finally:
        await reach.close()
