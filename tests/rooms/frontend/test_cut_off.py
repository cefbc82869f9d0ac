"""A worker of several whose way to the list's master is cut off answers 451: an operator is told, too."""

import asyncio
from pathlib import Path
from typing import Any, cast

from murder.admin.operate.running.health import problems_of
from murder.errors import UpstreamFailure, UpstreamKind
from murder.roles.frontend.locate import Locator
from murder.roles.frontend.role import FrontendRole
from murder.roles.mupdate.remote.ping import PingClient, PingServer
from murder.wire.nodes.control_answers import ListFacts, ProcessFacts, RoleFacts, Status
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import running_frontend

EVERY_S = 0.02


class Follower:
    """The process that follows the master, as far as a PingServer asks it."""

    is_cut_off = False

    async def ping(self, timeout_s: float) -> None:
        if self.is_cut_off:
            raise UpstreamFailure(UpstreamKind.DOWN, "master", "it is away")


def said(role: FrontendRole) -> list[str]:
    return said_of(role.report())


def said_of(role: RoleFacts) -> list[str]:
    facts: dict[str, Any] = dict.fromkeys(ProcessFacts.__dataclass_fields__, 0)
    process = ProcessFacts(**{**facts, "version": "1", "certificate_until": None})
    told = problems_of({"frontend": [Status(process, role)]}, 0.0, "fe1")
    return [one.what for one in told if "list" in one.what]


async def test_a_worker_that_cannot_ask_the_master_is_not_well_until_it_can(tmp_path: Path) -> None:
    path, follower = tmp_path / "replica.sock", Follower()
    async with running_frontend(tmp_path, {}, {}) as running:
        frontend = running.role.frontend
        assert frontend is not None and said(running.role) == []
        client = PingClient(path)
        locator = frontend.locator = Locator(running.mailboxes, client.ping, 5, 0)
        asking = asyncio.create_task(locator.keep_asking(EVERY_S))
        await until_soon(lambda: "does not answer" in locator.problem)
        (problem,) = said(running.role)
        assert problem.startswith("its list is cut off (the replica process does not answer")
        server = PingServer(cast(Any, follower), path, 5)
        await server.start()
        await until_soon(lambda: not locator.problem)
        assert said(running.role) == []
        follower.is_cut_off = True
        try:
            await locator.catch_up()
        except UpstreamFailure:
            assert said(running.role) == ["its list is cut off (it is away)"]
        follower.is_cut_off = False
        await until_soon(lambda: not locator.problem)
        asking.cancel()
        client.close()
        await server.stop()


def test_what_a_master_lacks_is_told_though_it_is_followed() -> None:
    copy = ListFacts("streaming", True, 0, 0.0, "its master came without 3 mailboxes of its list")
    assert said_of(RoleFacts(copy=copy)) == ["its master came without 3 mailboxes of its list"]
