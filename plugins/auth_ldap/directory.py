"""The auth backend: who a user is in the directory, and whether the password is theirs."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, TypeVar

from murder.api import Denied, Fault, Identity, LoginAttempt
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from plugins.auth_ldap import messages
from plugins.auth_ldap.connection import Connection, Server, connect
from plugins.auth_ldap.filters import BadFilter, encode_filter, fill, first_value, for_anybody
from plugins.auth_ldap.messages import Entry, Result
from plugins.auth_ldap.policy import verdict_of
from plugins.auth_ldap.settings import Settings

MAX_PASSWORD: Final = 1024
MAX_USER: Final = 256
MAX_GROUPS: Final = 500
MOST_OF_ALL: Final = 5000  # entries where one was asked for
MAX_DEPTH: Final = 10  # of groups in groups
IDLE: Final = 8  # connections that are kept for the next logins
TEMPORARY: Final = frozenset({1, 3, 11, 51, 52})  # results of a server that is in trouble
NOT_THIS_ONE: Final = frozenset({19, 48, 49, 53})  # a bind that fails by the user's fault
FORBIDDEN: Final = frozenset(' /%*"\\')
IN_NAMES: Final = frozenset("=,+")  # of entries

log = logging.getLogger("murder.plugins.auth_ldap")
T = TypeVar("T")


class Directory:
    """Fulfils AuthBackend, ChecksAttempts, ChecksFewAtOnce, FindsPeople, Diagnoses."""

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        self._settings = settings
        self._context = context
        self._servers = settings.all_servers()
        self._sick: dict[Server, float] = {}
        self._searching: Connection | None = None  # all searches share it
        self._opening = asyncio.Lock()
        self._has_told_elsewhere = False
        self._idle: list[Connection] = []  # for binds: one at a time on each
        self._loop: object = None

    @property
    def checks_at_once(self) -> int:
        """See ChecksFewAtOnce."""
        return self._settings.at_once

    @property
    def depends_on(self) -> Collection[str]:
        """See ChecksAttempts."""
        return ()

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts. An empty password is no bind but an anonymous one, that succeeds: it is never sent."""
        if not password or len(password) > MAX_PASSWORD or not _is_fit(user):
            return Denied.UNKNOWN
        if self._settings.user_dn:
            return await self._check_by_name(user, password)
        entry = await self._find(self._settings.filter, user)
        if entry is None:
            return Denied.UNKNOWN
        if not await self._bind(entry.name, user, password):
            return Denied.WRONG
        return await self._identity(entry, user)

    async def _check_by_name(self, user: str, password: bytes) -> Identity | Denied:
        """A directory does not tell an unknown user from a wrong password here."""
        settings = self._settings
        name = fill(settings.user_dn, user, is_escaped=settings.binds_by_name)
        if not settings.binds_by_name and not IN_NAMES.isdisjoint(user):
            return Denied.UNKNOWN

        async def ask(connection: Connection) -> Entry | None:
            if not await self._is_bound(connection, name, user, password):
                return None
            if settings.binds_by_name or not settings.base:
                return await self._own_entry(connection, name) or Entry(name, {})
            of_user = await self._only(connection, settings.filter, user)
            # who calls themselves so need not be whom the filter finds: it is theirs by the same password
            if of_user is None or not await self._is_bound(
                connection, of_user.name, user, password
            ):
                return None
            return of_user

        entry = await self._on_idle(ask)
        return Denied.UNKNOWN if entry is None else await self._identity(entry, user)

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend."""
        answer = await self.check(LoginAttempt("imap", "", "", False), user, password)
        return answer if isinstance(answer, Identity) else None

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend."""
        if not _is_fit(user):
            return None
        if self._settings.base:
            entry = await self._find(self._settings.filter, user)
        elif not self._settings.binds_by_name:
            return None
        else:
            name = fill(self._settings.user_dn, user)
            entry = await self._searching_for(lambda connection: self._own_entry(connection, name))
        return None if entry is None else await self._identity(entry, user)

    async def user_of_address(self, address: str) -> str | None:
        """See FindsPeople."""
        if not self._settings.address_filter or not _is_fit(address):
            return None
        entry = await self._find(self._settings.address_filter, address)
        return None if entry is None else self._user_id(entry, address)

    # --- what is in the directory

    async def _find(self, template: str, user: str) -> Entry | None:
        """The one entry. Raises UpstreamFailure where there are several, or the search fails."""
        return await self._searching_for(lambda connection: self._only(connection, template, user))

    async def _only(self, connection: Connection, template: str, user: str) -> Entry | None:
        """The same, with a connection that may read it."""
        settings = self._settings
        if not settings.base:
            return None
        entries = await self._entries(
            connection, settings.base, fill(template, user), settings.wanted(), 2, "base"
        )
        if len(entries) > 1:
            text = f"{template} finds several entries for one user; make it find one (plugins.auth_ldap.filter)"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, str(self._servers[0]), text)
        return entries[0] if entries else None

    async def _entries(
        self,
        connection: Connection,
        base: str,
        filled: str,
        attributes: Sequence[str],
        most: int,
        key: str,
    ) -> list[Entry]:
        """What is found; references to other servers are told, and not followed. Raises UpstreamFailure."""
        time_s = max(1, int(self._settings.timeout_s))
        result, entries = await connection.search(
            base, messages.SUBTREE, encode_filter(filled), attributes, most, time_s
        )
        if result.code not in (messages.SUCCESS, messages.SIZE_LIMIT):
            raise self._refused(result, connection.server, base, key)
        if not entries and connection.elsewhere and not self._has_told_elsewhere:
            self._has_told_elsewhere = True
            log.warning(
                "%s: who is not found below %s may be at %s, which is not followed: name that server, or one that has all "
                "(of an Active Directory the global catalogue, port 3268 or 3269), in plugins.auth_ldap.servers",
                *(connection.server, base, connection.elsewhere),
            )
        return entries

    async def _own_entry(self, connection: Connection, name: str) -> Entry | None:
        """What may be read of an entry; None where there is none."""
        result, entries = await connection.search(
            name,
            messages.BASE,
            encode_filter("(objectClass=*)"),
            self._settings.wanted(),
            1,
            max(1, int(self._settings.timeout_s)),
        )
        if result.code in (messages.NO_SUCH_OBJECT, messages.INVALID_NAME):
            return None
        if result.code != messages.SUCCESS:
            raise self._refused(result, connection.server, name, "user_dn")
        return entries[0] if entries else None

    async def _identity(self, entry: Entry, user: str) -> Identity:
        settings = self._settings
        user_id = self._user_id(entry, user)
        pairs = (pair.partition("=") for pair in settings.fields)
        fields = {name: entry.text(attribute) for name, _, attribute in pairs}
        return Identity(
            user_id,
            await self._groups(entry),
            tuple(entry.texts(settings.addresses)),
            entry.text(settings.name),
            entry.text(settings.host),
            MappingProxyType({name: value for name, value in fields.items() if value}),
        )

    def _user_id(self, entry: Entry, user: str) -> str:
        """Of the directory's spelling: it finds `anna` for `Anna` and for `anna ` too, and there is one mailbox."""
        user_id = entry.text(self._settings.user).lower()
        if not entry.attributes and self._settings.user_dn:
            user_id = (user if "%u" in self._settings.user_dn else user.partition("@")[0]).lower()
        if not user_id or not _is_fit(user_id):
            text = f"{entry.name} has no {self._settings.user} that is fit for a user id; set plugins.auth_ldap.user"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, str(self._servers[0]), text)
        domain = user.partition("@")[2].lower()
        if self._settings.with_domain and domain and "@" not in user_id:
            return f"{user_id}@{domain}"
        return user_id

    async def _groups(self, entry: Entry) -> frozenset[str]:
        settings = self._settings
        groups = {first_value(name).lower() for name in entry.texts(settings.member_of)}
        if settings.group_base:
            seen, wave = {entry.name.lower()}, [entry.name]
            for _ in range(MAX_DEPTH if settings.nested else 1):
                upper: list[str] = []
                for name in wave:
                    for group in await self._groups_of(name):
                        groups.add(group.text(settings.group_name).lower())
                        if group.name.lower() not in seen and len(seen) < MAX_GROUPS:
                            seen.add(group.name.lower())
                            upper.append(group.name)
                wave = upper
        return frozenset(filter(_is_fit_group, groups))

    async def _groups_of(self, name: str) -> list[Entry]:
        settings = self._settings
        filled = fill(settings.group_filter, first_value(name), name)
        base, wanted = settings.group_base, [settings.group_name]
        return await self._searching_for(
            lambda connection: self._entries(
                connection, base, filled, wanted, MAX_GROUPS, "group_base"
            )
        )

    # --- connections

    async def _bind(self, name: str, user: str, password: bytes) -> bool:
        """Whether it is the password."""
        return await self._on_idle(
            lambda connection: self._is_bound(connection, name, user, password)
        )

    async def _is_bound(
        self, connection: Connection, name: str, user: str, password: bytes
    ) -> bool:
        """The same; Raises Refusal where it is, and does not let in."""
        result = await connection.bind(name, password)
        verdict = verdict_of(result)
        if verdict is not None and verdict.is_right:
            raise Refusal(verdict.code, verdict.text)
        if result.code == messages.SUCCESS:
            return True
        self._take_as_denied(result, connection, name)
        if verdict is not None:
            log.warning("%s is not let in: %s", user, verdict.text)
        return False

    def _take_as_denied(self, result: Result, connection: Connection, name: str) -> None:
        """A bind that failed is the user's fault, or raises."""
        if result.code in (messages.NO_SUCH_OBJECT, messages.INVALID_NAME, *NOT_THIS_ONE):
            return
        raise self._refused(result, connection.server, name, "user_dn")

    async def _on_idle(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """With a connection that nobody else has meanwhile; again with a new one where an old one turns out to be dead."""
        self._new_loop()
        while True:
            connection = self._idle.pop() if self._idle else None
            if connection is not None and connection.is_lost:
                continue
            is_new = connection is None
            connection = connection or await self._open()
            try:
                answer = await self._in_time(ask(connection), connection)
            except UpstreamFailure as failure:
                connection.close()
                if failure.kind is UpstreamKind.LOST and not is_new:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            if len(self._idle) < IDLE and not connection.is_lost:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    async def _searching_for(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """With the connection that is bound as who may search."""
        self._new_loop()
        for is_last in (False, True):
            async with self._opening:
                connection = self._searching
                is_new = connection is None or connection.is_lost
                if connection is None or connection.is_lost:
                    connection = self._searching = await self._open_to_search()
            try:
                return await self._in_time(ask(connection), connection)
            except UpstreamFailure as failure:
                if failure.kind is not UpstreamKind.LOST or is_new or is_last:
                    raise
        raise AssertionError("the second time is the last")

    async def _open_to_search(self) -> Connection:
        connection = await self._open()
        settings = self._settings
        if settings.service_dn:
            try:
                result = await self._in_time(
                    connection.bind(settings.service_dn, settings.service_password.encode()),
                    connection,
                )
                if result.code != messages.SUCCESS:
                    raise self._refused(
                        result, connection.server, settings.service_dn, "service_dn"
                    )
            except BaseException:
                connection.close()
                raise
        return connection

    async def _open(self) -> Connection:
        """To the first server that answers; one that failed of late is asked last."""
        now = time.monotonic()
        order = sorted(self._servers, key=lambda place: self._sick.get(place, 0.0) > now)
        last: UpstreamFailure | None = None
        for server in order:
            try:
                connection = await connect(server, self._context, self._settings.connect_timeout_s)
            except UpstreamFailure as failure:
                self._sick[server] = now + self._settings.sick_s
                last = failure
            else:
                self._sick.pop(server, None)
                return connection
        assert last is not None, "there is one server at least"
        raise last

    async def _in_time(self, answer: Awaitable[T], connection: Connection) -> T:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await answer
        except TimeoutError:
            connection.close()
            self._sick[connection.server] = time.monotonic() + self._settings.sick_s
            text = f"no answer in {self._settings.timeout_s:g} s; look at its load and its indexes"
            raise UpstreamFailure(UpstreamKind.TIMEOUT, str(connection.server), text) from None

    def _refused(self, result: Result, server: Server, name: str, key: str) -> UpstreamFailure:
        """A result that is nobody's password, in words with the cure behind a semicolon."""
        kind = UpstreamKind.PROTOCOL
        if result.code in TEMPORARY and (result.code > 1 or self._settings.service_dn):
            kind, cure = UpstreamKind.AUTH_TEMPORARY, "its log tells more"
        elif result.code == messages.NO_SUCH_OBJECT:
            # some say so of what may not be seen
            reader = "service_dn" if self._settings.service_dn else "strangers"
            cure = f"set plugins.auth_ldap.{key} to one that there is, and that {reader} may read"
        elif result.code == messages.INVALID_NAME:
            cure = f"plugins.auth_ldap.{key} is a whole name, as ou=people,dc=example,dc=org"
        elif result.code in (messages.INVALID_CREDENTIALS, 48) and key == "service_dn":
            kind, cure = UpstreamKind.AUTH, "set service_dn and service_password as it knows them"
        elif result.code == 1 and not self._settings.service_dn:
            cure = "name somebody who may search: service_dn and service_password"
        elif result.code in (8, 13):
            cure = "use ldaps://, or starttls = true"
        elif result.code == 50 and not self._settings.service_dn:
            cure = "strangers may not read there: name somebody who may, service_dn and service_password"
        elif result.code == 50:
            cure = "give service_dn the right to read there, in the directory's access rules"
        elif result.code == 10:
            cure = "it sends to another server, which is not followed: name that in plugins.auth_ldap.servers"
        else:
            cure = "its log tells more"
        text = f"{name or 'the root'}: {result}; {cure}"
        return UpstreamFailure(kind, str(server), text)

    def _new_loop(self) -> None:
        """What belongs to an event loop that has ended is forgotten."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._searching, self._idle = loop, None, []
            self._opening = asyncio.Lock()

    # --- diagnosis

    async def diagnose(self) -> Sequence[Fault]:
        """See Diagnoses: each server by itself."""
        faults: list[Fault] = []
        for server in self._servers:
            try:
                async with self._alone(server) as connection:
                    await self._look(connection)
            except UpstreamFailure as failure:
                what, _, cure = failure.text.partition("; ")
                faults.append(Fault(f"{server}: {what}", cure or "its log tells more"))
        return faults

    @asynccontextmanager
    async def _alone(self, server: Server) -> AsyncIterator[Connection]:
        connection = await connect(server, self._context, self._settings.connect_timeout_s)
        try:
            yield connection
        finally:
            connection.close()

    async def _look(self, connection: Connection) -> None:
        settings = self._settings
        if settings.service_dn:
            password = settings.service_password.encode()
            result = await self._in_time(connection.bind(settings.service_dn, password), connection)
            if result.code != messages.SUCCESS:
                raise self._refused(result, connection.server, settings.service_dn, "service_dn")
        bases = {"base": settings.base, "group_base": settings.group_base}
        for key, base in bases.items():
            if not base:
                continue
            search = connection.search(
                base, messages.BASE, encode_filter("(objectClass=*)"), [], 1, 5
            )
            result, entries = await self._in_time(search, connection)
            if result.code != messages.SUCCESS:
                raise self._refused(result, connection.server, base, key)
            if not entries:
                who = "service_dn" if settings.service_dn else "strangers, or set service_dn:"
                text = f"{base}: nothing may be read there; give {who} the right to read it"
                raise UpstreamFailure(UpstreamKind.PROTOCOL, str(connection.server), text)
        if settings.base and (settings.service_dn or not settings.user_dn):
            await self._look_for_somebody(connection)

    async def _look_for_somebody(self, connection: Connection) -> None:
        """Whether there is anybody at all: a wrong attribute, or entries that may not be read, look like users who are not
        known."""
        settings = self._settings
        for key, text in (
            ("user", f"({settings.user}=*)"),
            ("filter", for_anybody(settings.filter)),
        ):
            try:
                encoded = encode_filter(text)
            except BadFilter:
                continue  # a rule, which takes no *
            request = messages.search_request(settings.base, messages.SUBTREE, encoded, [], 1, 5)
            # Samba sends more than was asked for
            search = connection.ask(request, most=MOST_OF_ALL)
            result, entries = await self._in_time(search, connection)
            if result.code == messages.SUCCESS and not entries and not connection.elsewhere:
                text = f"{settings.base}: nobody is found by {text}; set plugins.auth_ldap.{key} as people are kept there"
                raise UpstreamFailure(UpstreamKind.PROTOCOL, str(connection.server), text)


def _is_fit(user: str) -> bool:
    """Whether somebody may be called so, and has a mailbox."""
    return 0 < len(user) <= MAX_USER and user.isprintable() and FORBIDDEN.isdisjoint(user)


def _is_fit_group(name: str) -> bool:
    """Whether it can stand in an access list."""
    return 0 < len(name) <= MAX_USER and name.isprintable()
