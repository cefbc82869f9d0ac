"""What a frontend finds when it looks for itself: its list, and the backends from where it stands.

With connections of their own: what a session or the circuit breaker holds open says nothing here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.model.protocol import IMAP, LMTP
from murder.net.ended import Ended
from murder.net.outgoing.connect import connect
from murder.net.outgoing.lines import open_lines
from murder.net.outgoing.pool import open_as_node
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.multiplexor.imap import IMAP_SPEECH
from murder.roles.frontend.shared import Frontend
from murder.wire.nodes.control_answers import Probed

# all of one backend's ports; less than an operator waits for the node's answer
BACKEND_S: Final = 8.0
AT_ONCE: Final = 20  # backends
MAX_ANSWER: Final = 1 << 20
CURES: Final[Mapping[UpstreamKind, str]] = MappingProxyType(
    {
        UpstreamKind.RESOLVE: 'write its address into [servers."NAME"] address, or mend its name where it comes from',
        UpstreamKind.CONNECT: 'does it run? are [servers."NAME"] address and imap right? a firewall?',
        UpstreamKind.TLS: 'set tls, tls_name, or ca (who signs its certificate) in [servers."NAME"]',
        UpstreamKind.AUTH: "is this node's certificate (`murder ca issue NODE --role frontend`) of that server's authority?",
        UpstreamKind.TIMEOUT: "look at its log; a firewall may swallow what is sent to it",
        UpstreamKind.PROTOCOL: 'is [servers."NAME"] imap the port of its IMAP? implicit TLS there is tls = "implicit"',
        UpstreamKind.LOST: "look at its log: it takes no connection from here, or is full",
    }
)


async def probe(frontend: Frontend) -> AsyncIterator[Probed]:
    """A value for each thing looked at: `what`, `problem` (empty: it is well), `kind` of an UpstreamFailure, `took_ms`."""
    if frontend.whole_config.master is not None:
        yield await _list(frontend)
    upstreams = Upstreams(frontend.whole_config)
    listed = {*frontend.mailboxes.count_by_server(), *frontend.whole_config.servers}
    multiplexor, passed_on = frontend.multiplexor, set[str]()
    if multiplexor is not None:
        listed = set(frontend.mailboxes.count_by_server())
        passed_on = {*multiplexor.finder.servers(), *frontend.whole_config.servers} - listed
    places = asyncio.Semaphore(AT_ONCE)

    async def one(server: str) -> Probed:
        async with places:
            if server in passed_on:
                return await _passed_on(upstreams, server)
            return await _backend(upstreams, server)

    wanted = sorted((listed | passed_on) - {frontend.upstreams.home})
    tasks = [asyncio.ensure_future(one(server)) for server in wanted]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()


async def _list(frontend: Frontend) -> Probed:
    what = "its list of mailboxes"
    try:
        async with asyncio.timeout(BACKEND_S):
            await frontend.locator.catch_up()
    except (UpstreamFailure, Refusal) as failure:
        return Probed(what, f"cannot be compared with the master's: {failure}")
    except TimeoutError:
        return Probed(what, f"the master gives no answer in {BACKEND_S:g} s")
    if not frontend.mailboxes.synchronised:
        return Probed(what, "has never been complete")
    return Probed(what)


async def _passed_on(upstreams: Upstreams, server: str) -> Probed:
    """One to which sessions go as a whole, and that may be no node of ours: greeting, and TLS."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(BACKEND_S):
            upstream = await open_lines(upstreams, server, IMAP, BACKEND_S, None)
            try:
                await IMAP_SPEECH.begin(upstreams, upstream, None)
            finally:
                upstream.connection.abort()
    except UpstreamFailure as failure:
        problem = f"{failure.server}: {failure.problem}"
        cure = failure.cure or CURES.get(failure.kind, "")
        return Probed(server, problem, kind=failure.kind.value, cure=cure)
    except TimeoutError:
        cure = CURES[UpstreamKind.TIMEOUT]
        return Probed(server, f"{server}: no answer in {BACKEND_S:g} s", kind="timeout", cure=cure)
    except OSError as error:  # its own certificate's files
        return Probed(server, f"{server}: {error}", kind="tls", cure=CURES[UpstreamKind.TLS])
    return Probed(server, took_ms=round(1000 * (time.monotonic() - began), 1))


async def _backend(upstreams: Upstreams, server: str) -> Probed:
    """Log in with IMAP as this node, then knock where mail goes."""
    began = time.monotonic()
    probed = Probed(server)
    try:
        async with asyncio.timeout(BACKEND_S):
            upstream = await open_as_node(
                upstreams,
                server,
                name="murder doctor",
                timeout_s=BACKEND_S,
                max_message=MAX_ANSWER,
            )
            upstream.close()
            probed = replace(probed, took_ms=round(1000 * (time.monotonic() - began), 1))
            address = upstreams.address(server, LMTP)
            knocked = await connect(
                address.host,
                address.port,
                lambda _: Ended(),
                server=f"{server} (lmtp)",
                timeout_s=BACKEND_S,
            )
            knocked.close()
    except UpstreamFailure as failure:
        problem, cure = f"{failure.server}: {failure.problem}", failure.cure
        if failure.kind is UpstreamKind.AUTH:
            cure = cure or CURES[failure.kind]
        probed = replace(probed, problem=problem, kind=failure.kind.value, cure=cure)
    except TimeoutError:
        problem = f"{server}: no answer in {BACKEND_S:g} s"
        probed = replace(probed, problem=problem, kind="timeout")
    except OSError as error:  # its own certificate's files
        probed = replace(probed, problem=f"{server}: {error}", kind="tls")
    return probed
