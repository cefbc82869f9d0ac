"""A site's programs (`[sieve.programs."NAME"]`), run for scripts: each in a process of its own, that lives so long and says
so much at most. What it says is in memory while it is little, then in a file. One that fails says why in the log; who asked
hears None.
"""

import asyncio
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from weakref import WeakValueDictionary

from murder.auth.turnstile import Turnstile
from murder.config.sieve import ProgramConfig
from murder.errors import Refusal
from murder.log import Log
from murder.mime.mapped import MAPPED_OCTETS, let_go
from murder.net.turns import aside
from murder.roles.backend.messages.made import Made

AT_ONCE: Final = 4  # of one worker; others wait for their turn, one user after the other
# messages whose scripts have begun with programs: each keeps what those have said, in files, while it waits for the next,
# and may last for a minute; of one user no more than programs run at once
SCRIPTS_AT_ONCE: Final = 16
SAID_IN_MEMORY: Final = 32 * 1024  # octets of one
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
MAX_COMPLAINT: Final = 500  # octets of what a program says of its failure, for the log
PIECE: Final = 64 * 1024
NOTHING: Final = memoryview(b"")
# uvloop starts no process as somebody else: a process becomes that, and then the program
BECOME: Final = """
import os, sys
uid, gid, groups, *command = sys.argv[1:]
os.setgroups([int(group) for group in groups.split(",")])
os.setgid(int(gid))
os.setuid(int(uid))
try:
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
"""


class Programs:
    """See the module."""

    def __init__(self, programs: Mapping[str, ProgramConfig]) -> None:
        self._programs = programs
        self._room = Turnstile(AT_ONCE)
        self._scripts = Turnstile(SCRIPTS_AT_ONCE)
        self._of_users: WeakValueDictionary[str, Turnstile] = WeakValueDictionary()

    @asynccontextmanager
    async def scripts_turn(self, whose: str) -> AsyncIterator[None]:
        """Around all that the scripts of one message have programs do, from the first on. `whose`: a user's, or a shared
        mailbox's."""
        own = self._of_users.setdefault(whose, Turnstile(AT_ONCE))
        async with own.turn(whose), self._scripts.turn(whose):
            yield

    def words(self, *, for_users: bool) -> frozenset[str]:
        """The extensions that there are programs for: in users' scripts, or in the site's."""
        return frozenset(
            f"vnd.dovecot.{use}"
            for program in self._programs.values()
            for use in program.uses
            if program.by == "users" or not for_users
        )

    async def run(
        self,
        use: str,
        name: str,
        arguments: Sequence[str],
        pieces: Sequence[bytes | memoryview],
        known: Mapping[str, str],
        log: Log,
        *,
        for_user: bool,
    ) -> memoryview | None:
        """What it says to these octets; None where it is not there, or has failed. `known`: for its environment. Raises
        Refusal where there is no room for what it says."""
        program = self._programs.get(name)
        if program is None or use not in program.uses or (for_user and program.by != "users"):
            log.warning("program.failed", program=name, problem=f"there is none for {use} here")
            return None
        async with self._room.turn(known.get("USER", "")):
            said, problem = await _run(program, arguments, pieces, known)
        if problem:
            log.warning("program.failed", program=name, problem=problem)
            return None
        return said


async def _run(
    program: ProgramConfig,
    arguments: Sequence[str],
    pieces: Sequence[bytes | memoryview],
    known: Mapping[str, str],
) -> tuple[memoryview, str]:
    """What it says, and what is wrong with it. Raises Refusal."""
    command = [*program.command, *arguments]
    if program.user and os.geteuid() == 0:
        try:
            command = [*await aside(_as_user, program.user), *command]
        except KeyError:
            return NOTHING, f"this system has no user {program.user}"
    elif program.user:
        # who may not end a process of another user has `timeout`, which runs as that one, do it; and sudo lets nothing of
        # the environment through
        limit = ["timeout", "-k", "1", f"{program.timeout_s:g}"]
        variables = [f"{name}={text}" for name, text in known.items() if "\0" not in text]
        own = ["env", *variables, "HOME=/", f"PATH={PATH}"]
        command = ["sudo", "-n", "-u", program.user, "--", *limit, *own, *command]
    words = [os.fsencode(word) for word in command]
    environment = {name: os.fsencode(text) for name, text in known.items() if "\0" not in text}
    pipe = asyncio.subprocess.PIPE
    # from before it began, as sudo's `timeout` counts from behind that: else which of the two ends it is chance
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + program.timeout_s
    streams = asyncio.subprocess.SubprocessStreamProtocol
    try:
        # as create_subprocess_exec, which keeps to itself what closes the pipes
        transport, protocol = await loop.subprocess_exec(
            lambda: streams(limit=PIECE, loop=loop),
            *words,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd="/",
            env={**environment, "HOME": b"/", "PATH": PATH.encode()},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if command[0] != "sudo":
            return NOTHING, str(error)
        return NOTHING, f"there is no sudo, by which it would run as {program.user}"
    except (OSError, ValueError) as error:
        return NOTHING, str(error)
    process = asyncio.subprocess.Process(transport, protocol, loop)
    try:
        async with asyncio.timeout_at(ends_at):
            said, complaint = await _converse(process, pieces, program.max_output_bytes)
            if said is None:
                return NOTHING, f"it says more than {program.max_output_bytes} octets"
            code = await process.wait()
    except TimeoutError:
        return NOTHING, f"it takes longer than {program.timeout_s:g} s"
    finally:
        await _end(process, transport)
    if code:
        complained = complaint.decode("utf-8", "replace").strip()
        return NOTHING, f"exit code {code}" + (f": {complained}" if complained else "")
    return said, ""


def _as_user(user: str) -> Sequence[str]:
    """What runs the words behind it as this user, with all their groups and none of ours. Raises KeyError where there is no
    such user."""
    account = pwd.getpwnam(user)
    groups = ",".join(map(str, os.getgrouplist(account.pw_name, account.pw_gid)))
    return [
        sys.executable,
        "-I",
        "-S",
        "-c",
        BECOME,
        str(account.pw_uid),
        str(account.pw_gid),
        groups,
    ]


async def _converse(
    process: asyncio.subprocess.Process, pieces: Sequence[bytes | memoryview], most: int
) -> tuple[memoryview | None, bytes]:
    """What it says, None where that is too much, and what it complains of. Raises Refusal."""
    assert process.stdout is not None and process.stderr is not None
    said: memoryview | Refusal | None
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(_write(process, pieces))
        complaining = tasks.create_task(_read_some(process.stderr))
        try:
            said = await _read(process.stdout, most)
        except Refusal as refusal:  # a group would make a group of it
            said = refusal
        if not isinstance(said, memoryview):
            writing.cancel()
            complaining.cancel()
    if isinstance(said, Refusal):
        raise said
    return said, b"" if said is None else complaining.result()


async def _write(process: asyncio.subprocess.Process, pieces: Sequence[bytes | memoryview]) -> None:
    """A program need not read it."""
    writer = process.stdin
    assert writer is not None
    if writer.transport.is_closing():  # uvloop's raises what is no OSError
        return
    writer.transport.set_write_buffer_limits(0)  # so that nothing waits in it when it is closed
    with suppress(OSError):
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                if writer.transport.is_closing():
                    return
                writer.write(piece[start : start + PIECE])
                await writer.drain()
                if not start % MAPPED_OCTETS:
                    let_go(piece)
            let_go(piece)
    writer.close()


async def _read(reader: asyncio.StreamReader, most: int) -> memoryview | None:
    """None: it is more than that. Raises Refusal."""
    said = Made(SAID_IN_MEMORY)
    size = 0
    while piece := await reader.read(PIECE):
        size += len(piece)
        if size > most:
            return None
        await said.take(piece)
    return await said.taken()


async def _read_some(reader: asyncio.StreamReader) -> bytes:
    """All is read, so that the program can go on; the beginning is kept."""
    kept = b""
    while piece := await reader.read(PIECE):
        kept = (kept + piece)[:MAX_COMPLAINT]
    return kept


async def _end(process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport) -> None:
    """With whatever it has started. What has left its group may hold the other ends of its pipes for as long as it likes."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None and not process.stdin.transport.is_closing():
        process.stdin.transport.abort()  # with what it has not read; closed, it would wait for that
    with suppress(OSError):
        transport.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(5):  # of another user: it ends by itself
            await process.wait()
