"""ManageSieve at a backend: the scripts of who is logged in (RFC 5804 §2.5 to §2.12)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.identity import Login
from murder.model.protocol import SIEVE
from murder.net.connection import Connection
from murder.roles.backend.scripts.kept import IsActive
from murder.roles.backend.worker import BackendWorker
from murder.serve.line import LOGGED_IN
from murder.serve.managesieve import COMMON, Capability, Row, SieveDialogue
from murder.serve.service import ClientService
from murder.sieve import Problem
from murder.wire.managesieve import (
    Command,
    ScriptFault,
    format_faults,
    format_literal,
    format_scripts,
)

MAX_DIGITS: Final = 10  # of a size: it may come as a string, and of thousands none makes a number
MAX_TOLD: Final = 50  # errors of one script


class BackendSieve(SieveDialogue):
    """See the module."""

    def __init__(
        self, connection: Connection, service: ClientService, backend: BackendWorker
    ) -> None:
        super().__init__(connection, service, backend.shared.config.max_script_bytes)
        self.backend = backend.shared
        self.backend.sessions.add(self)

    def ended(self) -> None:
        self.backend.sessions.discard(self)

    def language(self) -> Sequence[Capability]:
        site = self.backend.site
        return language_of(site.users.extensions, site.users.limits.redirects, site.lists.schemes())

    async def entered_here(self, login: Login) -> None:
        await self.backend.refer_login(login, SIEVE)
        await self.backend.ensure_inbox(login)

    def code_of(self, refusal: Refusal) -> bytes:
        return b"ACTIVE" if isinstance(refusal, IsActive) else super().code_of(refusal)

    @property
    def _owner(self) -> str:
        assert self.login is not None
        return self.login.user

    # --- commands

    async def _have_space(self, command: Command) -> None:
        name, size = _name_in(command.args[0]), command.args[1]
        if not size.isdigit() or len(size) > MAX_DIGITS:
            raise BadSyntax("HAVESPACE takes a name and a number of octets")
        await self.backend.scripts.check_space(self._owner, name, int(size))
        self.ok()

    async def _put(self, command: Command) -> None:
        name, script = _name_in(command.args[0]), command.args[1]
        warnings = await self._check(script)
        await self.backend.scripts.put(self._owner, name, script)
        self._note("put", name)
        self._done(warnings)

    async def _check_only(self, command: Command) -> None:
        self._done(await self._check(command.args[0]))

    async def _check(self, script: bytes) -> str:
        """Its warnings. Raises Refusal for what is no script."""
        most = self.backend.scripts.limits.octets
        if len(script) > most:
            raise Refusal(Code.TOO_BIG, f"A script may have {most} octets")
        checked = await self.backend.site.users.check(script, self._owner)
        if checked.errors:
            raise Refusal(Code.CANNOT, _lines(checked.errors))
        return _lines(checked.warnings)

    def _done(self, warnings: str) -> None:
        self.ok(warnings, b"WARNINGS" if warnings else b"")

    async def _list(self, command: Command) -> None:
        scripts = await self.backend.scripts.all(self._owner)
        self.send(format_scripts([(script.name, script.is_active) for script in scripts]))
        self.ok()

    async def _set_active(self, command: Command) -> None:
        name = _name_in(command.args[0])
        if name:  # one that an older version, or another server, took is not run unlooked-at
            await self._check(await self.backend.scripts.read(self._owner, name))
        await self.backend.scripts.activate(self._owner, name)
        self._note("activated" if name else "deactivated", name)
        self.ok()

    async def _get(self, command: Command) -> None:
        script = await self.backend.scripts.read(self._owner, _name_in(command.args[0]))
        self.send(format_literal(script) + b"\r\n")
        self.ok()

    async def _delete(self, command: Command) -> None:
        name = _name_in(command.args[0])
        await self.backend.scripts.delete(self._owner, name)
        self._note("deleted", name)
        self.ok()

    async def _rename(self, command: Command) -> None:
        old, new = map(_name_in, command.args)
        await self.backend.scripts.rename(self._owner, old, new)
        self._note("renamed", new)
        self.ok()

    def _note(self, what: str, name: str) -> None:
        self.log.info("script.changed", change=what, script=name)

    TABLE: ClassVar[Mapping[bytes, Row]] = {
        **COMMON,
        b"CHECKSCRIPT": Row(LOGGED_IN, _check_only, 1, 1),
        b"DELETESCRIPT": Row(LOGGED_IN, _delete, 1, 1, audited=1),
        b"GETSCRIPT": Row(LOGGED_IN, _get, 1, 1),
        b"HAVESPACE": Row(LOGGED_IN, _have_space, 2, 2),
        b"LISTSCRIPTS": Row(LOGGED_IN, _list),
        b"PUTSCRIPT": Row(LOGGED_IN, _put, 2, 2, audited=1),
        b"RENAMESCRIPT": Row(LOGGED_IN, _rename, 2, 2, audited=2),
        b"SETACTIVE": Row(LOGGED_IN, _set_active, 1, 1, audited=1),
    }


def language_of(
    extensions: Sequence[str], redirects: int, lists: Sequence[str]
) -> Sequence[Capability]:
    """The capabilities that tell what scripts may say: RFC 5804 §1.7, RFC 6134 §2.8. `lists`: schemes of their names."""
    rows: list[Capability] = [
        (b"SIEVE", " ".join(extensions).encode()),
        (b"MAXREDIRECTS", b"%d" % redirects),
    ]
    if "enotify" in extensions:
        rows.append((b"NOTIFY", b"mailto"))
    if "extlists" in extensions:
        rows.append((b"EXTLISTS", " ".join(lists).encode()))
    return rows


def _name_in(octets: bytes) -> str:
    """Raises BadSyntax."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("the name of a script is UTF-8") from None


def _lines(problems: Sequence[Problem]) -> str:
    faults = [
        ScriptFault(problem.line, problem.column, problem.text) for problem in problems[:MAX_TOLD]
    ]
    if len(problems) > MAX_TOLD:
        faults.append(ScriptFault(0, 0, "..."))
    return format_faults(faults)
