"""`murder ctl doctor`, `lmtp route`, `raw`: what is wrong, where mail goes, what a server says."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncclick as click

from murder.authority import AuthorityError, read_certificate
from murder.cli.reaching import backends_of, operator_options
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.entry import MailboxEntry
from murder.model.name import inbox_of
from murder.operate.backends import look
from murder.operate.nodes import ask_all, places, problems_of
from murder.operate.reach import Reach

PORTS: Final = ("imap", "lmtp", "pop3")
TRY_S: Final = 5.0
DAY_S: Final = 86400.0


class _Findings:
    """Says each finding as it comes."""

    def __init__(self) -> None:
        self.bad = 0

    def good(self, what: str) -> None:
        click.echo(f"ok    {what}")

    def wrong(self, what: str, cure: str) -> None:
        self.bad += 1
        click.echo(f"WRONG {what}\n      -> {cure}")


@click.command()
@operator_options
async def doctor(reach: Reach) -> int:
    """Look at everything a murder needs, from this host: names, ports, TLS, authentication both ways, clocks,
    certificates, disks, the lists. Each finding has its mending step. Exit code 1 if something is wrong."""
    found = _Findings()
    _certificates(reach, found)
    rows = await _master(reach, found)
    for server in backends_of(reach, rows):
        await _backend(reach, server, found)
    await _nodes(reach, found)
    _disk(reach, found)
    click.echo(f"{found.bad} things are wrong" if found.bad else "Everything is well.")
    return 1 if found.bad else 0


def _certificates(reach: Reach, found: _Findings) -> None:
    for path in (
        reach.config.tls.ca,
        reach.config.tls.certificate,
        reach.config.tls.public_certificate,
    ):
        if path is None:
            continue
        try:
            until = read_certificate(path).not_valid_after_utc
        except AuthorityError as problem:
            found.wrong(str(problem), "murder ca issue NAME --role ROLE, and copy the files")
            continue
        days = (until.timestamp() - time.time()) / DAY_S
        if days < 30:
            found.wrong(f"{path} ends in {days:.0f} days", "issue it again, copy it, kill -HUP")
        else:
            found.good(f"{path} is valid for {days:.0f} days")


async def _master(reach: Reach, found: _Findings) -> list[MailboxEntry]:
    try:
        target = reach.target
        if not await _resolves(target.host, found):
            return []
        rows = await reach.rows()
    except Refusal as problem:
        found.wrong(problem.text, "set it in murder.toml")
        return []
    except UpstreamFailure as failure:
        found.wrong(f"the master {failure.server}: {failure.text}", _cure(failure))
        return []
    found.good(f"the master {target.name} lets us in and has {len(rows)} mailboxes")
    stuck = [row for row in rows if not row.is_active]
    if stuck:
        found.wrong(
            f"{len(stuck)} names are reserved at the master",
            "if they stay so, see `murder ctl reservations` and `murder ctl check`",
        )
    return rows


async def _resolves(host: str, found: _Findings) -> bool:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as problem:
        found.wrong(
            f"{host} has no address ({problem.strerror})",
            "DNS or /etc/hosts, or `address` in [servers]",
        )
        return False
    return True


async def _backend(reach: Reach, server: str, found: _Findings) -> None:
    host = reach.config.address_of(server)
    if not await _resolves(host, found):
        return
    config = reach.config.server(server)
    for key in PORTS:
        port = getattr(config, key)
        try:
            async with asyncio.timeout(TRY_S):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
        except OSError as problem:  # TimeoutError is one
            why = os.strerror(problem.errno) if problem.errno else "no answer"
            found.wrong(
                f"{server}: {key} at {host}:{port}: {why}",
                f"does it run? is {key} in its [backend]? a firewall?",
            )
    answer = await look(reach, server)
    if answer.problem:
        failure = UpstreamFailure(answer.kind, server, answer.problem)
        found.wrong(f"{server}: {answer.problem}", _cure(failure))
    else:
        found.good(
            f"{server} ({answer.software}) lets us in and answers in {1000 * answer.answer_s:.1f} ms"
        )


_CURES: Final = {
    "resolve": "DNS or /etc/hosts, or `address` in [servers]",
    "connect": "is the node up? the port right? a firewall between?",
    "tls": "the certificate must be of the same authority (tls.ca) and carry the server's name, or set tls_name",
    "auth": "`murder ca issue NAME --role operator` for [operator], or an administrator of that backend",
    "timeout": "it is up and does not answer: its log, its disk, its load",
    "down": "it has just failed repeatedly: its log",
}


def _cure(failure: UpstreamFailure) -> str:
    return _CURES.get(failure.kind.value, "its log tells more")


async def _nodes(reach: Reach, found: _Findings) -> None:
    if not places(reach):
        found.good("no [operator] nodes: their clocks, disks and lists are not looked at")
        return
    now = time.time()
    for node in await ask_all(reach, {"do": "status"}):
        if node.problem:
            found.wrong(
                f"{node.place}: {node.problem}", "is [node] control set there, and the port open?"
            )
            continue
        problems = problems_of(node.answers, now)
        for problem in problems:
            what, _, cure = problem.partition(": ")
            found.wrong(f"{node.name}: {what}", cure or "see `murder ctl status`")
        if not problems:
            found.good(f"{node.name} is well")


def _disk(reach: Reach, found: _Findings) -> None:
    data = reach.config.node.data
    if not data.is_dir():
        return
    if not os.access(data, os.W_OK):
        found.wrong(f"{data} cannot be written by this user", f"run as node.user, or chown {data}")
    usage = shutil.disk_usage(data)
    if usage.free < 0.05 * usage.total:
        found.wrong(f"{data} has {usage.free >> 20} MiB left", "make room, or move users away")


@click.group()
def lmtp() -> None:
    """Where mail goes."""


@lmtp.command()
@operator_options
@click.argument("address")
async def route(reach: Reach, address: str) -> int:
    """The mailbox and backend that ADDRESS is delivered to: user, user+folder, user@domain, +shared/folder."""
    local, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
    user, _, folder = local.partition("+")
    domains = reach.config.namespace.domains
    names = []
    if user:
        owners = [f"{user}@{domain}", user] if domains and domain else [user]
        for owner in owners:
            inbox = inbox_of(owner)
            if folder:
                names.append(
                    reach.namespace.internal(
                        reach.namespace.personal_prefix + folder.encode(), owner
                    )
                )
            names.append(inbox)
    elif folder:
        names.append(reach.name(folder))
    for name in names:
        entry = await reach.master.find(name)
        if entry is not None and entry.is_active:
            click.echo(
                f"{address} -> {reach.shown(name)} at {entry.server} (if its rights let post)"
            )
            return 0
    raise Refusal(Code.NONEXISTENT, f"{address}: no such mailbox (550 5.1.1)")


@click.command()
@operator_options
@click.argument("protocol", type=click.Choice(["mupdate", "imap", "pop3", "lmtp"]))
@click.argument("host", required=False)
async def raw(reach: Reach, protocol: str, host: str | None) -> int:
    """Speak a protocol to a node yourself, logged in as the operator where the protocol lets him: lines of standard
    input go there, what comes is printed. HOST: a backend's name, or HOST:PORT; mupdate: the master."""
    if protocol == "imap":
        await _raw_imap(reach, host or "")
        return 0
    if protocol == "mupdate":
        place = host or reach.target.name
        default = 3905
    else:
        place, config = host or "", reach.config.server(host or "")
        default = getattr(config, protocol)
        place = reach.config.address_of(place)
    name, _, port = place.rpartition(":") if ":" in place else (place, "", "")
    if not name:
        raise click.UsageError("name a HOST")
    async with asyncio.timeout(TRY_S):
        reader, writer = await asyncio.open_connection(name, int(port or default))
    await _pass_on(reader.read, writer.write)
    writer.close()
    return 0


async def _raw_imap(reach: Reach, host: str) -> None:
    if not host:
        raise click.UsageError("name a backend")
    upstream = await reach.backend(host)
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Here:
        """Takes what the backend says from now on."""

        def begin(self) -> None:
            pass

        def received(self, data: bytes) -> None:
            got.put_nowait(data)

        def writable(self) -> None:
            pass

        def lost(self, error: Exception | None) -> None:
            got.put_nowait(b"")

    async def read(_: int) -> bytes:
        return await got.get()

    upstream.connection.receiver = Here()
    click.echo(f"logged in at {host}; write tagged commands", err=True)
    await _pass_on(read, upstream.connection.write)


async def _pass_on(read: Callable[[int], Awaitable[bytes]], write: Callable[[bytes], None]) -> None:
    """Until either side ends; what a pipe gave last is answered first."""

    async def come() -> None:
        while octets := await read(65536):
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()

    coming = asyncio.ensure_future(come())
    loop = asyncio.get_running_loop()
    while not coming.done():
        line = await loop.run_in_executor(None, sys.stdin.buffer.readline)
        if not line:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(coming), 1.0)
            break
        write(line.rstrip(b"\r\n") + b"\r\n")
    coming.cancel()
