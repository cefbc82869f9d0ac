"""The frontend role: the dataless proxy, in one worker process.

With one worker it follows the master itself; with several, worker 0 does (and serves nobody), the others read its list
and ask it for the master's present.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final, Protocol

from murder.api.placement import BackendLoad, NewMailbox
from murder.auth.chain import Chain
from murder.config import Config
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.entry import Location
from murder.model.name import inbox_of, owner_of
from murder.model.protocol import MUPDATE, ProtocolSpec
from murder.net.listener import Service
from murder.net.outgoing.pool import Pool
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.capabilities import Capabilities
from murder.roles.frontend.locate import Locator, Ping
from murder.roles.frontend.multiplexor.reach import Multiplexor
from murder.roles.frontend.multiplexor.through import ServerAuth
from murder.roles.frontend.placement import place, servers
from murder.roles.frontend.plugged import FrontendReach
from murder.roles.frontend.probe import probe
from murder.roles.frontend.shared import Frontend, Policies
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.following import ReplicaService, list_path, socket_path
from murder.roles.mupdate.remote.ping import PingClient
from murder.roles.mupdate.role import make_service, take_config
from murder.roles.mupdate.serving.master import MupdateService
from murder.serve.role import ClientRole, MakesAuth, WithinServer, probe_auth
from murder.serve.service import drain, factories_of
from murder.wire.nodes.control_answers import ListFacts, Probed, RoleFacts
from murder.wire.nodes.control_words import AskPlace, Candidate, NotPlaced, Placement

ROLE: Final = "frontend"
LIST_WAIT_S: Final = 15.0  # for worker 0 to make the list at its very first start
ASK_EVERY_S: Final = 1.0  # a worker whose way to the master was cut off


async def _no_master(timeout_s: float) -> None:
    """A multiplexor needs none."""
    raise UpstreamFailure(UpstreamKind.UNSYNCHRONISED, "mailbox list", "this node has no master")


class MakesParts(Policies, MakesAuth, Protocol):
    """What this role needs of the plugins."""


class FrontendRole(ClientRole):
    """See the module."""

    NAME = ROLE
    FACTORIES = factories_of(ROLE)
    IS_PUBLIC = True
    CARRIES_ADMINS = True
    PROXY_ROLES = ()
    SAMPLES = True

    def __init__(
        self,
        config: Config,
        plugins: MakesParts,
        worker: int,
        within: WithinServer | None = None,
    ) -> None:
        super().__init__(config, plugins, worker, within)
        self._plugins = plugins
        self._replica: ReplicaService | None = None
        self._mailboxes: MailboxList | None = None
        self._list_service: MupdateService | None = None  # where this process writes the list
        self.frontend: Frontend | None = None
        self._reading: set[asyncio.Task[None]] = set()  # tables, anew
        self._asking: asyncio.Task[None] | None = None  # whether the list's master can be asked

    async def start(self) -> None:
        """Raises Refusal with a sentence; does not wait for the master."""
        config = self._config
        path = list_path(config, ROLE)
        is_alone = config.workers_of(ROLE) <= 1
        if config.master is None and config.frontend.mode == "multiplexor":
            self._mailboxes = MailboxList.open(path)  # which stays empty
            self.serve_from(self._mailboxes, _no_master)
            return
        if is_alone or self._worker == 0:
            self._replica = ReplicaService(config, path)
            await self._replica.start()
            self._mailboxes = self._replica.mailboxes
            self._list_service = make_service(
                config, self._plugins, self._mailboxes, self._replica.hub
            )
            if not is_alone:
                return
        else:
            self._mailboxes = await self._open_list()
        ping: Ping = self._replica.ping if self._replica else PingClient(socket_path(path)).ping
        self.serve_from(self._mailboxes, ping)
        if self._replica is None and self.frontend is not None:
            asking = self.frontend.locator.keep_asking(ASK_EVERY_S)
            self._asking = asyncio.create_task(asking)

    def serve_from(self, mailboxes: MailboxList, ping: Ping) -> None:
        """Make the services, over this list and this way to the master's present."""
        self.frontend = self._make_frontend(mailboxes, ping)
        self._serve(self.frontend, self.frontend.gate, FrontendReach(self.frontend))

    async def _open_list(self) -> MailboxList:
        """The list that worker 0 writes; at the very first start it may not be there yet."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + LIST_WAIT_S
        while True:
            try:
                return MailboxList.open(list_path(self._config, ROLE), read_only=True)
            except Refusal:
                if loop.time() > give_up_at:
                    raise
            await asyncio.sleep(0.05)

    def _make_frontend(self, mailboxes: MailboxList, ping: Ping) -> Frontend:
        config = self._config
        locator = Locator(
            mailboxes, ping, config.mupdate.command_timeout_s, config.mupdate.missing_grace_s
        )
        upstreams = Upstreams(config, self._within, self.figures)
        multiplexor = None
        if config.frontend.mode == "multiplexor":
            multiplexor = Multiplexor(config, mailboxes, locator, upstreams)
            multiplexor.finder.read_table()
        return Frontend(
            whole_config=config,
            config=config.frontend,
            server_name=config.node.name,
            namespace=config.namespace.namespace(),
            gate=self._make_gate(),
            mailboxes=mailboxes,
            locator=locator,
            plugins=self._plugins,
            upstreams=upstreams,
            pool=Pool(config.frontend.upstream_idle_s, config.frontend.max_upstreams_idle),
            capabilities=Capabilities(config.frontend.max_message_bytes, config.node.name),
            refers_logins=self._plugins.refers_logins(),
            refers_unable=self._plugins.refers_unable(),
            multiplexor=multiplexor,
        )

    def _chain(self) -> Chain | None:
        if self._own_passwords != "through":
            return None
        return Chain([("server", ServerAuth(self._multiplexor))])

    def _multiplexor(self) -> Multiplexor:
        frontend = self.frontend
        if frontend is None or frontend.multiplexor is None:
            raise UpstreamFailure(UpstreamKind.DOWN, self._config.node.name, "it has just stopped")
        return frontend.multiplexor

    @property
    def _own_passwords(self) -> str:
        """`password` or `through` where users' own passwords open the servers."""
        is_multiplexor = self._config.frontend.mode == "multiplexor"
        login = self._config.multiplexor.login
        return login if is_multiplexor and login != "proxy" else ""

    @property
    def _carries_passwords(self) -> bool:
        return bool(self._own_passwords)

    def _proxies(self) -> Collection[str]:
        return self._config.frontend.proxies

    @property
    def _has_list(self) -> bool:
        return self._config.master is not None

    def has_inbox(self, user: str) -> bool:
        """Raises UpstreamFailure where that cannot be known now."""
        frontend = self.frontend
        if frontend is None:
            return False
        is_there = frontend.mailboxes.find(inbox_of(user)) is not None
        if not is_there:
            frontend.locator.check_whole()
        return is_there

    def reload(self, config: Config) -> None:
        """For sessions from now on; those that are there keep what they began with."""
        self._config = config
        if self._replica is not None:
            self._replica.reload(config)
        if self._list_service is not None:
            take_config(self._list_service, config, self._plugins)
        frontend = self.frontend
        if frontend is None:
            return
        frontend.gate = self._make_gate().following(frontend.gate)
        frontend.whole_config, frontend.config = config, config.frontend
        frontend.locator.missing_grace_s = config.mupdate.missing_grace_s
        frontend.upstreams.configure(config)
        self._reload_multiplexor(frontend, config)
        frontend.pool.configure(config.frontend.upstream_idle_s, config.frontend.max_upstreams_idle)
        self._serve(frontend, frontend.gate, FrontendReach(frontend))

    def _reload_multiplexor(self, frontend: Frontend, config: Config) -> None:
        if config.frontend.mode != "multiplexor":
            frontend.multiplexor = None
            return
        if frontend.multiplexor is None:
            frontend.multiplexor = Multiplexor(
                config, frontend.mailboxes, frontend.locator, frontend.upstreams
            )
        frontend.multiplexor.configure(config)
        reading = asyncio.get_running_loop().create_task(
            frontend.multiplexor.finder.read_table_again()
        )
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def probe(self) -> AsyncIterator[Probed]:
        """For `murder ctl doctor`; one worker looks for all."""
        if self.frontend is not None and self._worker <= 1:
            async for fault in probe_auth(self.frontend.gate):
                yield fault
            async for fault in probe(self.frontend):
                yield fault

    def report(self) -> RoleFacts:
        """For `murder ctl status`."""
        copy, frontend = self._replica.report() if self._replica else None, self.frontend
        if frontend is None:
            return RoleFacts(copy=copy)
        if copy is None and (problem := frontend.locator.problem):
            is_complete = frontend.mailboxes.synchronised
            copy = ListFacts("cut off", synchronised=is_complete, list_problem=problem)
        down = (server for server in servers(frontend) if not frontend.upstreams.is_well(server))
        return RoleFacts(
            mailboxes=frontend.mailboxes.count(),
            list_bytes=frontend.mailboxes.used_bytes(),
            sessions=len(frontend.sessions),
            down=tuple(sorted(down)),
            copy=copy,
        )

    async def place(self, request: AskPlace) -> Placement | NotPlaced | None:
        """For an operator: where this frontend would put a new mailbox, by the weights that they have just asked for; or
        what its policy says of their candidates."""
        frontend = self.frontend
        if frontend is None:
            return None  # the process that writes the list places nothing
        if request.candidates is not None:
            offered = [
                BackendLoad(
                    Location(candidate.server), candidate.mailboxes, weight=candidate.weight
                )
                for candidate in request.candidates
            ]
            new = NewMailbox(request.name, owner_of(request.name), "", None)
            chosen = frontend.plugins.choose_backend(new, offered)
            return Placement(chosen.server if chosen is not None else None)
        try:
            placed = await place(frontend, request.name, request.weights)
        except (Refusal, UpstreamFailure) as problem:
            return NotPlaced(str(problem))
        candidates = tuple(
            Candidate(load.location.server, load.mailboxes, load.weight) for load in placed.loads
        )
        return Placement(placed.server or None, placed.reason, candidates, quota=placed.quota)

    def services(self) -> Mapping[ProtocolSpec, Service]:
        own = super().services()
        return own if self._list_service is None else {**own, MUPDATE: self._list_service}

    async def stop(self) -> None:
        """Say BYE at quiet points; cut off who is still busy after the drain."""
        frontend = self.frontend
        if self._asking is not None:
            self._asking.cancel()
        if frontend is not None:
            await drain(frontend.sessions, self._config.node.drain_timeout_s)
            frontend.pool.close()
        if self._list_service is not None:
            await drain(self._list_service.dialogues, self._config.node.drain_timeout_s)
            self._list_service = None
        if self._replica is not None:
            await self._replica.stop()
        elif self._mailboxes is not None:
            self._mailboxes.close()
        logger(role=ROLE).debug("role.stopped")
        self.frontend = None
