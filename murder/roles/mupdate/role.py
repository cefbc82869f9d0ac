"""The MUPDATE role: a master, or (where `mupdate.master` is set and no engine) a replica that serves others."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from murder.api.list_log import ListLog
from murder.auth.gate import Gate
from murder.config import Config, load_config
from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import display
from murder.model.protocol import MUPDATE, ProtocolSpec
from murder.net.listener import Service
from murder.net.tls import listening_context
from murder.roles.mupdate.commits.engine import Engine
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.moving import Movable, Moved
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.remote.following import ReplicaService, list_path
from murder.roles.mupdate.serving.master import STREAMING, MupdateService
from murder.roles.mupdate.serving.stream import Hub
from murder.roles.mupdate.zone.keeper import ZoneKeeper
from murder.serve.role import MakesAuth, gate_of
from murder.serve.service import drain
from murder.trail.audit import NOBODYS, AuditLog, audit_log
from murder.trail.figures import Figures
from murder.wire.mupdate import MASTER
from murder.wire.nodes.control_answers import (
    ConflictShown,
    CopyStage,
    EngineFacts,
    ListCopied,
    MemberFacts,
    RoleFacts,
    parse_conflict,
)

ROLE: Final = "mupdate"


def make_service(
    config: Config,
    plugins: MakesAuth,
    mailboxes: MailboxList,
    hub: Hub,
    ledger: Ledger | None = None,
    audit: AuditLog = NOBODYS,
) -> MupdateService:
    """What tells a list over MUPDATE; without a ledger it is a replica's, read-only."""
    mupdate, master = config.mupdate, config.master
    return MupdateService(
        server_name=config.node.name,
        config=mupdate,
        gate=_make_gate(config, plugins),
        mailboxes=mailboxes,
        hub=hub,
        ledger=ledger,
        tls=listening_context(config.tls, public=False),
        master=MASTER if ledger is not None or master is None else f"mupdate://{master.host}/",
        max_failures=config.auth.max_failures,
        audit=audit,
    )


def _make_gate(config: Config, plugins: MakesAuth) -> Gate:
    """Who may ask for the list: nodes by their certificates, and those that the configuration names."""
    return gate_of(config, config.mupdate, plugins)


def take_config(service: MupdateService, config: Config, plugins: MakesAuth) -> None:
    """A changed configuration, for connections from now on."""
    service.config = config.mupdate
    service.gate = _make_gate(config, plugins).following(service.gate)
    service.max_failures = config.auth.max_failures
    service.tls = listening_context(config.tls, public=False)


class MakesMaster(MakesAuth, Protocol):
    """What a master needs of the plugins."""

    def list_log(self, config: Config | None = None) -> ListLog | None: ...


class MupdateRole:
    """Master or listening replica, in one process."""

    def __init__(self, config: Config, plugins: MakesMaster, worker: int) -> None:
        self._config = config
        self._plugins = plugins
        self._service: MupdateService | None = None
        self._replica: ReplicaService | None = None
        self._ledger: Ledger | None = None
        self._engine: Movable | None = None
        self._members: tuple[MemberFacts, ...] = ()
        self._looking: asyncio.Task[None] | None = None
        self._zone: ZoneKeeper | None = None  # of users' names in DNS
        self._audit = audit_log(config.node.data, ROLE, worker, config.log.audit_keep_bytes)

    async def start(self) -> None:
        config = self._config.mupdate
        path = list_path(self._config, ROLE)
        if self._config.is_master:
            mailboxes = MailboxList.open(
                path,
                map_bytes=config.max_list_bytes,
                may_grow=False,
                journal_bytes=config.journal_bytes,
            )
            hub = Hub(mailboxes, config.max_stream_backlog_bytes, self._heard)
            self._engine = Movable(mailboxes, config.engine, self._make_log)
            self._ledger = Ledger(mailboxes, hub.committed, inline=True, engine=self._engine)
            await self._join(self._ledger, self._engine)
        else:
            self._replica = ReplicaService(self._config, path)
            await self._replica.start()
            mailboxes, hub = self._replica.mailboxes, self._replica.hub
        self._service = make_service(
            self._config, self._plugins, mailboxes, hub, self._ledger, self._audit
        )
        self._keep_zone(self._config)
        logger(role="mupdate").info(
            "list.opened", path=str(path), mailboxes=mailboxes.count(), seq=mailboxes.last_seq()
        )

    def _keep_zone(self, config: Config) -> None:
        """Begin, or begin anew with another configuration, where this is a master. Raises Refusal with what is missing."""
        service = self._service
        if self._zone is not None:
            self._zone.stop()
            self._zone = None
        if service is None or self._ledger is None:
            return
        if config.dns.follows:
            self._zone = ZoneKeeper(config.dns, service.mailboxes, config.servers)
            self._zone.start()

    def _heard(self, committed: Committed) -> None:
        """For the hub: what this master has committed."""
        if self._zone is not None:
            self._zone.heard(committed)

    def _make_log(self, engine: str) -> ListLog:
        """Of the engine of that name, as the configuration has it now. Raises ConfigError, Refusal."""
        config = self._config
        if config.mupdate.engine != engine:
            config = replace(config, mupdate=replace(config.mupdate, engine=engine))
        log = self._plugins.list_log(config)
        if log is None:
            raise Refusal(Code.CANNOT, f"{engine} keeps no list for several masters")
        return log

    async def _join(self, ledger: Ledger, engine: Movable) -> None:
        """Take up what the other masters have done. Where the engine is away, what is here serves until it comes back.
        Raises Refusal where the list cannot be this engine's."""
        try:
            await ledger.catch_up()
            await ledger.between_commits(engine.joined)
        except UpstreamFailure:
            return  # told in the log
        except Refusal as refusal:
            if refusal.code is Code.UNAVAILABLE:
                return
            await ledger.close()
            ledger.mailboxes.close()
            raise

    def reload(self, config: Config) -> None:
        """For connections from now on."""
        before, self._config = self._config, config
        if (before.dns, before.servers) != (config.dns, config.servers):
            try:
                self._keep_zone(config)
            except Refusal as refusal:
                logger(role="mupdate").warning("dns.failed", problem=refusal.text)
        self._audit.keep(config.log.audit_keep_bytes)
        service = self._service
        if service is not None:
            take_config(service, config, self._plugins)
        if self._replica is not None:
            self._replica.reload(config)

    @property
    def figures(self) -> Figures:
        """For a monitoring system."""
        return self._service.figures if self._service is not None else Figures()

    async def look(self) -> None:
        """Ask the engine's servers how they are, for `report`; whoever asks meanwhile waits for the same answers."""
        engine = self._engine
        if engine is None or not engine.is_shared:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look(engine))
        await asyncio.shield(self._looking)

    async def _look(self, engine: Engine) -> None:
        try:
            members = await asyncio.to_thread(engine.members)
        except (UpstreamFailure, Refusal) as error:
            self._members = (MemberFacts(self._config.mupdate.engine, "", problem=error.text),)
            return
        self._members = tuple(
            MemberFacts(
                member.name, member.address, member.is_leader, member.used_bytes, member.problem
            )
            for member in members
        )

    def _engine_facts(self) -> EngineFacts | None:
        engine, configured = self._engine, self._config.mupdate.engine
        if engine is None or not (engine.is_shared or engine.kind != configured):
            return None
        members = self._members if engine.is_shared else ()
        return EngineFacts(engine.kind, engine.problem, members, configured)

    def report(self) -> RoleFacts:
        """For `murder ctl status`."""
        service = self._service
        if service is None:
            return RoleFacts()
        return RoleFacts(
            mailboxes=service.mailboxes.count(),
            list_bytes=service.mailboxes.used_bytes(),
            list_journal_bytes=service.mailboxes.ahead_bytes,
            conflicts=sum(conflict.command != "FORCE" for conflict in self.conflicts()),
            changes=service.counters.changes,
            refused=service.counters.refused,
            subscribers=len(service.hub.lag()),
            behind=max(service.hub.lag(), default=0),
            is_master=self._replica is None,
            mark=service.mailboxes.mark() if self._replica is None else None,
            engine=self._engine_facts(),
            servers=tuple(sorted(service.mailboxes.count_by_server())),
            followers=tuple(sorted(self._followers())),
            copy=self._replica.report() if self._replica is not None else None,
        )

    async def copy_list(self, to: str) -> AsyncIterator[CopyStage | ListCopied]:
        """Bring the list to another engine. Raises Refusal, UpstreamFailure, ConfigError; where that is the end, nothing has
        changed, or it is settled as soon as the engine answers."""
        engine, ledger = self._engine, self._ledger
        if engine is None or ledger is None:
            raise Refusal(Code.CANNOT, "This node is not a master")
        log, began = logger(role="mupdate"), engine.kind
        self._audit.note("list.copy", {"arguments": to})
        try:
            # where the engine is may have been written down since the start, which alone reads the plugins' tables
            there = await asyncio.to_thread(load_config, self._config.file)
            self._config = replace(self._config, plugins=there.plugins)
            async with contextlib.aclosing(engine.move(to, ledger)) as stages:
                async for stage in stages:
                    if isinstance(stage, Moved):
                        log.info(
                            "engine.moved",
                            engine=to,
                            seq=stage.seq,
                            elapsed_ms=round(1000 * stage.waited_s),
                        )
                        yield ListCopied(to, stage.rows, stage.seq, round(stage.waited_s, 3))
                    else:
                        yield CopyStage(stage.what, stage.done, stage.of)
        except (Refusal, UpstreamFailure) as error:
            log.warning("engine.not_moved", engine=began, wanted=to, problem=error.text)
            raise

    def _followers(self) -> set[str]:
        """By their certificates, those who follow the list now: frontends, replicas, backends of a murder in which each
        is a frontend too."""
        dialogues = self._service.dialogues if self._service is not None else ()
        sessions = (dialogue.describe() for dialogue in dialogues)
        return {session.user for session in sessions if session.state == STREAMING and session.user}

    def conflicts(self, forget: bool = False) -> list[ConflictShown]:
        """For `murder ctl conflicts`; `forget` removes what is told."""
        if self._service is None:
            return []
        conflicts = [
            parse_conflict({"name": display(name), **json.loads(facts)})
            for name, facts in self._service.mailboxes.conflicts().items()
        ]
        if forget and self._ledger is not None:
            self._ledger.forget_conflicts()
        return conflicts

    def services(self) -> Mapping[ProtocolSpec, Service]:
        assert self._service is not None, "start comes first"
        return {MUPDATE: self._service}

    async def stop(self) -> None:
        """Say BYE at quiet points, write what was promised, close the list."""
        service = self._service
        if service is None:
            return
        await drain(service.dialogues, self._config.node.drain_timeout_s)
        service.stop()
        service.hub.close()
        if self._zone is not None:
            self._zone.stop()
        if self._ledger is not None:
            await self._ledger.close()
            service.mailboxes.close()
        if self._replica is not None:
            await self._replica.stop()
        self._service = None
