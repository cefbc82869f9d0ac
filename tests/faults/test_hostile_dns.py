"""The server of a master's zone lies, never ends, or answers what nobody has asked: names follow again once it is well."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.opcode
import dns.rdatatype
import dns.renderer
import dns.rrset
import dns.tsig
import pytest
from structlog.testing import capture_logs

from murder.config.dns import DnsConfig
from murder.config.value import Endpoint
from murder.errors import UpstreamFailure
from murder.roles.mupdate.zone import keeper as keeper_module
from murder.roles.mupdate.zone.keeper import ZoneKeeper
from murder.roles.mupdate.zone.server import ZoneServer
from tests.kit.programs.bind import KEY
from tests.kit.waiting import until_soon
from tests.rooms.mupdate.nodes import Raw, master

ZONE = "imap.example.org"
Answer = Callable[[Any], Iterator[Any]]
KEYS = {dns.name.from_text("murder"): dns.tsig.Key("murder", KEY)}


class Zone:
    """A server that says what `answer` makes of a question: whole messages, each signed."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.said = 0
        self.changes: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                query = dns.message.from_wire(await reader.readexactly(length), keyring=KEYS)
                self.asked += 1
                if query.opcode() == dns.opcode.UPDATE:
                    self.changes += [one.to_text() for one in query.sections[2]]
                context = None
                for answer in self.answer(query):
                    wire = answer.to_wire(multi=True, tsig_ctx=context)
                    context = answer.tsig_ctx
                    writer.write(struct.pack(">H", len(wire)) + wire)
                    self.said += 1
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def zone(answer: Answer) -> AsyncIterator[tuple[Zone, DnsConfig]]:
    served = Zone(answer)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    place = Endpoint("127.0.0.1", served.port)
    config = DnsConfig(
        suffix=ZONE, follows=True, server=place, key_name="murder", key=KEY, timeout_s=5.0
    )
    try:
        yield served, config
    finally:
        server.close()


def well(query: Any) -> Iterator[Any]:
    """An empty zone, that takes changes."""
    answer = dns.message.make_response(query)
    if query.question and query.question[0].rdtype == dns.rdatatype.AXFR:
        answer.answer += [soa(), soa()]
    yield answer


def soa() -> Any:
    return dns.rrset.from_text(f"{ZONE}.", 60, "IN", "SOA", "ns. host. 1 2 3 4 5")


def endless(query: Any) -> Iterator[Any]:
    """A transfer that never comes to its end."""
    number = 0
    while True:
        answer = dns.message.make_response(query)
        if not number:
            answer.answer.append(soa())
        for _ in range(50):
            number += 1
            name = f"n{number}.{ZONE}."
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "elsewhere."))
        yield answer


def other_records(query: Any) -> Iterator[Any]:
    """Whatever is asked for, the name has an address."""
    answer = dns.message.make_response(query)
    asked = query.question[0]
    if asked.rdtype == dns.rdatatype.CNAME:
        answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", "192.0.2.1"))
        yield answer
    else:
        yield from well(query)


async def test_of_a_zone_without_end_no_more_is_read_than_a_zone_may_have() -> None:
    async with zone(endless) as (served, config):
        with pytest.raises(UpstreamFailure, match="a zone of more than 120 names"):
            await asyncio.to_thread(ZoneServer(config).records, 120)
        assert served.said < 1000  # and what sockets hold


async def test_a_name_that_has_other_records_is_left_to_others() -> None:
    async with zone(other_records) as (_, config):
        found = await asyncio.to_thread(ZoneServer(config).records_of, ["anna", "ben"])
        assert found == {"anna": "", "ben": ""}


async def test_who_is_stopped_asks_nothing_more() -> None:
    async with zone(well) as (served, config):
        server = ZoneServer(config)
        await asyncio.to_thread(server.records_of, ["anna"])
        server.stop()
        with pytest.raises(UpstreamFailure, match="stopping"):
            await asyncio.to_thread(server.records_of, ["ben"])
        assert served.asked == 1


async def test_a_keeper_never_gives_up_and_tells_of_a_bug_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(keeper_module, "LAST_RETRY_S", 0.01)
    calls = 0

    class Broken(ZoneServer):
        def records(self, most: int = 0) -> dict[str, str]:
            nonlocal calls
            calls += 1
            if calls <= 5:
                raise KeyError("nobody thought of that")
            return {}

    monkeypatch.setattr(keeper_module, "ZoneServer", Broken)
    async with zone(well) as (served, config), master(tmp_path) as server:
        peer = await Raw.connect(server.port)
        await peer.ok('ACTIVATE "user.anna" "be1.example.org!default" "anna\tlr\t"')
        keeper = ZoneKeeper(config, server.mailboxes, [])
        with capture_logs() as log:
            keeper.start()
            await until_soon(lambda: any("be1.example.org" in one for one in served.changes))
            await until_soon(lambda: len(log) > 1)
        keeper.stop()
        assert [line["event"] for line in log] == ["dns.crashed", "dns.updated"]
        await peer.close()
