"""The backend role: the server that keeps mail, in one worker process.

Every worker serves all protocols on the shared store and list; worker 0 starts first and alone, mends what a crash
left, and keeps this server's list and the master's the same.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

from murder.api.delivery import DeliveryFilter
from murder.api.store import (
    KeepsEpoch,
    KeepsExpunged,
    MailboxStore,
    NeedsPlace,
    NoticesMailboxes,
    RestoresExpunged,
    Retention,
    TellsJournals,
)
from murder.api.timing import set_committed
from murder.api.turns import set_rest
from murder.config import BackendConfig, Config
from murder.config.submission import SubmissionConfig
from murder.errors import Code, Refusal
from murder.log import logger
from murder.mime.bounds import Bounds as ParsedBounds
from murder.mime.bounds import set_bounds
from murder.model.acl import format_acl, parse_default_acl
from murder.model.entry import Location
from murder.model.name import display, inbox_of
from murder.model.protocol import ProtocolSpec
from murder.net.outgoing.upstream import Upstreams
from murder.net.turns import line_up
from murder.roles.backend.changes.bus import Bus
from murder.roles.backend.changes.events import Events, MailQueued, ScriptsQueued
from murder.roles.backend.changes.presence import Presence
from murder.roles.backend.changes.tracker import Tracker
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.expiry import keep_expiring
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.hierarchy.policies import Policies
from murder.roles.backend.hierarchy.referral import Referrals
from murder.roles.backend.messages.made import keep_made_in
from murder.roles.backend.moves.departed import Departed
from murder.roles.backend.moves.journal import OPEN, Journal, State
from murder.roles.backend.moves.mover import Mover
from murder.roles.backend.plugged import BackendReach
from murder.roles.backend.reconcile.discovery import Noticer
from murder.roles.backend.reconcile.epoch import Epochs
from murder.roles.backend.reconcile.master import Comparer
from murder.roles.backend.reconcile.place import PlaceWatch
from murder.roles.backend.reconcile.store import AT_ONCE, Matcher, need_places
from murder.roles.backend.records.annotations import Annotations, Bounds
from murder.roles.backend.records.deliveries import FOLDER as DELIVERIES_FOLDER
from murder.roles.backend.records.deliveries import Deliveries, Room
from murder.roles.backend.records.duplicates import Duplicates
from murder.roles.backend.records.quota import Quotas
from murder.roles.backend.records.totals import Totals
from murder.roles.backend.records.urlauth import UrlKeys
from murder.roles.backend.renames.keeper import Renames
from murder.roles.backend.scripts.by_imap import ImapScripts
from murder.roles.backend.scripts.kept import Limits as ScriptLimits
from murder.roles.backend.scripts.kept import Scripts
from murder.roles.backend.scripts.site import load_site
from murder.roles.backend.scripts.srs import RedirectSenders
from murder.roles.backend.scripts.submission import Submitter
from murder.roles.backend.shared import Backend
from murder.roles.backend.worker import BackendWorker
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.following import list_path
from murder.roles.mupdate.remote.link import master_target
from murder.serve.role import ClientRole, MakesAuth, probe_auth
from murder.serve.service import Session, drain, factories_of
from murder.wire.imap.mailboxes.metadata import refuse_too_many, refuse_value_too_big
from murder.wire.nodes.control_answers import ConflictShown, Probed, RoleFacts

ROLE: Final = "backend"
BUS_FOLDER: Final = "bus"
DUPLICATES_FOLDER: Final = "duplicates"
LOCKS_FOLDER: Final = "pop3"
MOVES_FOLDER: Final = "moves"
SIEVE_FOLDER: Final = "sieve"
SCRIPT_LOCKS_FOLDER: Final = "scripts"


class MakesParts(MakesAuth, Protocol):
    """What this role needs of the plugins."""

    def delivery_filters(self) -> Sequence[tuple[str, DeliveryFilter]]: ...

    def store(self) -> MailboxStore: ...


def _parsed(config: BackendConfig) -> ParsedBounds:
    return ParsedBounds(
        config.max_parsed_addresses,
        config.max_parsed_parts,
        config.max_parsed_levels,
        config.max_parsed_header_bytes,
    )


def _bounds_of(config: BackendConfig) -> Bounds:
    return Bounds(
        config.max_metadata_value_bytes,
        config.max_metadata_entries,
        config.max_metadata_bytes,
        config.max_metadata_bytes_per_user,
    )


def _redirect_senders(config: SubmissionConfig) -> RedirectSenders:
    return RedirectSenders(config.redirect_sender, config.srs_domain, config.srs_secret)


def _room(config: SubmissionConfig) -> Room:
    return Room(
        config.max_waiting,
        config.max_waiting_bytes,
        config.max_waiting_per_user,
        config.max_waiting_bytes_per_user,
    )


def _script_limits(config: BackendConfig) -> ScriptLimits:
    return ScriptLimits(config.max_scripts_per_user, config.max_script_bytes)


def _master_url(config: Config) -> str:
    if config.mupdate.master is not None:
        return f"mupdate://{config.mupdate.master.host}/"
    return f"mupdate://{config.node.name}/" if config.master is not None else ""


def _make_noticer(
    store: MailboxStore,
    mailboxes: Mailboxes,
    announcer: Announcer,
    events: Events,
    departed: Departed,
) -> Noticer | None:
    """None where nobody else makes mailboxes in the store."""
    if not isinstance(store, NoticesMailboxes):
        return None
    return Noticer(store, mailboxes, announcer, events, departed.is_kept)


def _make_annotations(config: BackendConfig, ledger: Ledger) -> Annotations:
    refuse = refuse_value_too_big, refuse_too_many
    return Annotations(ledger.mailboxes, ledger, *refuse, _bounds_of(config))


def _make_policies(config: Config, mailboxes: Mailboxes, annotations: Annotations) -> Policies:
    return Policies(config.expiry, config.namespace.namespace(), mailboxes, annotations)


def _attend(store: MailboxStore, tracker: Tracker) -> None:
    """From now on the store tells what happens, and keeps what sessions have not been told of."""
    store.watch(tracker)
    if isinstance(store, KeepsExpunged):
        store.keep_for(tracker)


def _retain(store: MailboxStore, config: BackendConfig) -> None:
    """From now on the store keeps so much of what is expunged."""
    if isinstance(store, RestoresExpunged):
        keep_s, most = config.expunged_keep_s, config.expunged_keep_messages
        store.retain(Retention(keep_s, most, config.expunged_keep_bytes))


class BackendRole(ClientRole):
    """See the module."""

    NAME = ROLE
    FACTORIES = factories_of(ROLE)
    IS_PUBLIC = False

    def __init__(self, config: Config, plugins: MakesParts, worker: int) -> None:
        super().__init__(config, plugins, worker)
        self._plugins = plugins
        self._log = logger(role=ROLE)
        self._ledger: Ledger | None = None
        self._client: MasterClient | None = None
        self._bus: Bus | None = None
        self._presence: Presence | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._submitter: Submitter | None = None
        self._imap_scripts: ImapScripts | None = None
        self._taking_in: asyncio.Task[None] | None = None  # scripts that came as files
        self._totals: Totals | None = None
        self._counting: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._matching: asyncio.Task[None] | None = None
        self._comparer: Comparer | None = None
        self._epochs: Epochs | None = None
        self._place: PlaceWatch | None = None
        self._placed: asyncio.Task[None] | None = None
        self.backend: Backend | None = None
        self.mover: Mover | None = None
        self.renames: Renames | None = None

    async def start(self) -> None:
        """Open store and list, mend, compare with the master in the background. Raises Refusal with a sentence."""
        config = self._config
        set_bounds(_parsed(config.backend))
        set_rest(line_up)
        set_committed(self._committed)
        mailbox_list = MailboxList.open(
            list_path(config, ROLE), map_bytes=config.mupdate.max_list_bytes
        )
        self._check_name(mailbox_list)
        store = await self._start_store(mailbox_list)
        self._ledger = Ledger(mailbox_list)
        target = master_target(config)
        self._client = MasterClient(target) if target is not None else None
        events = Events()
        tracker = Tracker(events, self._make_presence())
        deliveries = self._make_deliveries()
        self._epochs = self._make_epochs(store, tracker, deliveries)
        if self._epochs is not None:
            await self._epochs.start(is_first=self._worker == 0)
        journal = Journal(config.node.data / ROLE / MOVES_FOLDER)
        departed = Departed(journal, store)
        location = Location(config.node.name, config.backend.partition)
        announcer = Announcer(
            self._ledger, store, self._client, location, events, departed.make_room_for
        )
        settled = await announcer.repair()
        _attend(store, tracker)
        self._start_bus(tracker, events)
        comparer = self._comparer = self._make_comparer(store, announcer, events)
        mailboxes = self._make_mailboxes(mailbox_list, store, departed)
        noticer = _make_noticer(store, mailboxes, announcer, events, departed)
        quotas = Quotas(mailbox_list, self._ledger, store)
        upstreams = Upstreams(config)
        annotations = _make_annotations(config.backend, self._ledger)
        self.backend = Backend(
            config=config.backend,
            server_name=config.node.name,
            namespace=config.namespace.namespace(),
            gate=self._make_gate(),
            store=store,
            mailboxes=mailboxes,
            announcer=announcer,
            tracker=tracker,
            events=events,
            journal=journal,
            master=self._client,
            annotations=annotations,
            policies=_make_policies(config, mailboxes, annotations),
            quotas=quotas,
            scripts=self._make_scripts(store, mailboxes, announcer, quotas),
            site=load_site(config),
            maildrop_locks=config.node.data / ROLE / LOCKS_FOLDER,
            url_keys=UrlKeys(mailbox_list, self._ledger, config.backend.max_url_keys_per_mailbox),
            referrals=self._make_referrals(self._client),
            noticer=noticer,
            duplicates=self._make_duplicates(),
            deliveries=deliveries,
            upstreams=upstreams,
            sends_mail=config.submission.server is not None,
            redirect_senders=_redirect_senders(config.submission),
            filters=self._plugins.delivery_filters(),
            domains=config.namespace.domains,
            figures=self.figures,
            master_url=_master_url(config),
        )
        self.mover = Mover(self.backend, upstreams, keeps_all=self._worker == 0)
        self.renames = Renames(self.backend, upstreams, self._client, keeps_all=self._worker == 0)
        if self._worker == 0:
            matcher = Matcher(mailboxes, self._ledger, announcer, departed.is_kept)
            await self._match(matcher, mailbox_list)
        self._serve_from(BackendWorker(self.backend, self.mover, self.renames))
        if comparer is not None:
            self._start_comparing(comparer)
            comparer.owe(name for intent in settled for name in intent.names)
        self.mover.start()
        self.renames.start()
        if self._worker == 0:
            self._serve_all(self.backend)

    async def _start_store(self, mailbox_list: MailboxList) -> MailboxStore:
        store = self._plugins.store()
        if isinstance(store, NeedsPlace):
            need_places(store, mailbox_list)
        _retain(store, self._config.backend)
        keep_made_in(self._config.node.data)
        await store.start()
        self._place = PlaceWatch(store)
        return store

    def _serve_all(self, backend: Backend) -> None:
        """What one worker does for all: remove what is over, send, and take in what came as files."""
        folder = self._config.node.data / ROLE
        backend.mail_log = self._mail_log()
        self._expiring = asyncio.create_task(keep_expiring(backend, folder, self._audit))
        if self._place is not None:
            self._placed = asyncio.create_task(self._place.keep_looking())
        submitter = self._submitter = Submitter(backend, self._config)
        imap_scripts = self._imap_scripts = ImapScripts(backend)
        backend.events.subscribe(MailQueued, lambda _: submitter.rows.wake())
        backend.events.subscribe(ScriptsQueued, lambda _: imap_scripts.rows.wake())
        submitter.rows.start()
        imap_scripts.rows.start()
        self._taking_in = asyncio.create_task(backend.scripts.take_in_all())
        if self._config.metrics.listen:
            walk = backend.mailboxes.list.walk
            self._totals = Totals(backend.store, lambda: (entry.name for entry in walk()))
            self._counting = asyncio.create_task(self._totals.keep_counting())

    def _make_mailboxes(
        self, mailbox_list: MailboxList, store: MailboxStore, departed: Departed
    ) -> Mailboxes:
        config, comparer = self._config, self._comparer
        return Mailboxes(
            mailbox_list,
            store,
            config.namespace.namespace(),
            format_acl(parse_default_acl(config.backend.default_acl)),
            lambda name: (
                departed.has_left(name) or (comparer is not None and comparer.owe_quarantined(name))
            ),
            departed.row,
            lambda: self._client is None or mailbox_list.synchronised,
        )

    def _make_scripts(
        self, store: MailboxStore, mailboxes: Mailboxes, announcer: Announcer, quotas: Quotas
    ) -> Scripts:
        node, folder = self._config.node, self._config.node.data / ROLE
        left, locks = folder / SIEVE_FOLDER, folder / SCRIPT_LOCKS_FOLDER
        limits = _script_limits(self._config.backend)
        return Scripts(store, mailboxes, announcer, quotas, node.name, left, locks, limits)

    def _serve_from(self, worker: BackendWorker) -> None:
        backend = worker.shared
        self._serve(worker, backend.gate, BackendReach(backend))

    def _make_deliveries(self) -> Deliveries:
        folder = self._config.node.data / ROLE / DELIVERIES_FOLDER
        try:
            deliveries = Deliveries(folder)
        except (OSError, sqlite3.Error) as error:
            text = f"{folder}: {error}; deliveries by scripts cannot be noted there"
            raise Refusal(Code.UNAVAILABLE, text) from error
        deliveries.room = _room(self._config.submission)
        self._noting = asyncio.create_task(deliveries.keep_noting())
        return deliveries

    def _make_epochs(
        self, store: MailboxStore, tracker: Tracker, deliveries: Deliveries
    ) -> Epochs | None:
        if self._client is None or not isinstance(store, KeepsEpoch):
            return None
        words = self._config.node.name, lambda: tracker.changes, deliveries.forget_begun
        return Epochs(store, self._client, *words)

    def _make_duplicates(self) -> Duplicates | None:
        keep_s = self._config.backend.suppress_duplicates_s
        if not keep_s:
            return None
        folder = self._config.node.data / ROLE / DUPLICATES_FOLDER
        try:
            return Duplicates(folder, keep_s)
        except (OSError, sqlite3.Error) as error:
            text = f"{folder}: {error}; what was delivered cannot be noted there"
            raise Refusal(Code.UNAVAILABLE, text) from error

    def _make_referrals(self, master: MasterClient | None) -> Referrals | None:
        config = self._config
        if master is None:
            return None

        def server_of(server: str, protocol: ProtocolSpec) -> tuple[str, int | None]:
            key = protocol.keys[0]
            port = config.server(server).port(key)
            return config.address_of(server), None if port == key.port else port

        return Referrals(master, config.node.name, config.namespace.namespace(), server_of)

    def _committed(self, seconds: float, flushed: bool) -> None:
        self.figures.took("store_commits", seconds, "yes" if flushed else "no")

    @property
    def sessions(self) -> Collection[Session]:
        """All that are open now."""
        return self.backend.sessions if self.backend is not None else ()

    def _proxies(self) -> Collection[str]:
        return self._config.backend.proxies

    def has_inbox(self, user: str) -> bool:
        return self.backend is not None and self.backend.mailboxes.find(inbox_of(user)) is not None

    def reload(self, config: Config) -> None:
        """For sessions from now on; those that are there keep what they began with."""
        self._config = config
        backend, mover, renames = self.backend, self.mover, self.renames
        if backend is None or mover is None or renames is None:
            return
        backend.gate = self._make_gate().following(backend.gate)
        backend.config = config.backend
        _retain(backend.store, config.backend)
        backend.policies = _make_policies(config, backend.mailboxes, backend.annotations)
        backend.scripts.limits = _script_limits(config.backend)
        backend.sends_mail = config.submission.server is not None
        backend.redirect_senders = _redirect_senders(config.submission)
        backend.deliveries.room = _room(config.submission)
        if self._submitter is not None:
            self._submitter.config = config
        try:
            backend.site = load_site(config)
        except Refusal as refusal:
            self._log.warning("script.not_read", problem=str(refusal))  # those from before stay
        set_bounds(_parsed(config.backend))
        mover.upstreams.configure(config)
        target = master_target(config)
        if self._client is not None and target is not None:
            self._client.target = target
        self._serve_from(BackendWorker(backend, mover, renames))

    async def probe(self) -> AsyncIterator[Probed]:
        """For `murder ctl doctor`; one worker looks for all."""
        if self.backend is not None and self._worker <= 1:
            async for fault in probe_auth(self.backend.gate):
                yield fault

    async def look(self) -> None:
        """For `report`, whether mail can be kept."""
        if self._place is not None:
            await self._place.look()

    def report(self) -> RoleFacts:
        """For `murder ctl status`."""
        backend = self.backend
        if backend is None:
            return RoleFacts()
        moves = [move for move in backend.journal.moves() if move.state in OPEN]
        store = backend.store
        room = self._place.room if self._place is not None else None
        facts = RoleFacts(
            mailboxes=backend.mailboxes.list.count(),
            list_bytes=backend.mailboxes.list.used_bytes(),
            journal_bytes=store.journal_octets() if isinstance(store, TellsJournals) else None,
            store_messages=self._totals.messages if self._totals is not None else None,
            store_bytes=self._totals.octets if self._totals is not None else None,
            store_problem=self._place.problem if self._place is not None else None,
            store_disk_free=room.free if room is not None else None,
            store_disk_size=room.size if room is not None else None,
            sessions=len(backend.sessions),
            moves=len(moves),
            moves_failed=sum(move.state is State.FAILED for move in moves),
        )
        if self._keeper is None:
            return facts  # the others connect to the master only when they change something
        connected = self._client is not None and self._client.is_connected
        comparer = self._comparer
        return replace(
            facts,
            quarantined=len(comparer.quarantined()) if comparer is not None else None,
            lacking=comparer.lacking if comparer is not None else None,
            master="connected" if connected else "away",
            master_problem=(comparer.problem or None) if comparer is not None else None,
        )

    def conflicts(self, forget: bool = False) -> list[ConflictShown]:
        """For `murder ctl conflicts`: what another server has, and this one too, and RENAMEs that wait for another server.
        There is nothing to forget: each stays until it is over."""
        if self._keeper is None or self._comparer is None or self.renames is None:
            return []
        return self.renames.in_doubt() + [
            ConflictShown(
                display(resting.name),
                "QUARANTINED",
                self._config.node.name,
                resting.at,
                kept_as=display(resting.kept_as),
            )
            for resting in self._comparer.quarantined()
        ]

    # --- at start

    def _check_name(self, mailbox_list: MailboxList) -> None:
        """Refuse a name that is not the one this data was written under: the murder would lose every mailbox."""
        foreign = sorted(set(mailbox_list.count_by_server()) - {self._config.node.name})
        if foreign:
            raise Refusal(
                Code.CANNOT,
                f"[node] name is {self._config.node.name!r}, but the mailboxes in {mailbox_list.path} belong "
                f"to the server {foreign[0]!r}: set the name back, or choose this server's own [node] data",
            )

    async def _match(self, matcher: Matcher, mailbox_list: MailboxList) -> None:
        """At once, or behind the start where there are many."""
        if mailbox_list.count() <= AT_ONCE:
            await matcher.match()
        else:
            self._matching = asyncio.create_task(self._match_behind(matcher))

    async def _match_behind(self, matcher: Matcher) -> None:
        try:
            await matcher.match()
        except Exception as error:  # noqa: BLE001 - the end of a task
            self._log.error("store.unmatched", exc_info=error)

    def _make_presence(self) -> Presence | None:
        workers = self._config.workers_of(ROLE)
        if workers <= 1:
            return None
        presence = Presence(self._config.node.data / ROLE / BUS_FOLDER, self._worker, workers)
        presence.start()
        self._presence = presence
        return presence

    def _start_bus(self, tracker: Tracker, events: Events) -> None:
        if self._config.workers_of(ROLE) <= 1:
            return
        folder = self._config.node.data / ROLE / BUS_FOLDER
        self._bus = Bus(folder, self._worker, tracker.heard, events)
        self._bus.start()

    def _make_comparer(
        self, store: MailboxStore, announcer: Announcer, events: Events
    ) -> Comparer | None:
        """Every worker sees to what it has undone itself; worker 0 to the whole list."""
        if self._client is None:
            return None
        assert self._ledger is not None
        silent = Announcer(self._ledger, store, None, announcer.location, Events())
        return Comparer(self._ledger, announcer, silent, self._client, events)

    def _start_comparing(self, comparer: Comparer) -> None:
        if self._worker != 0:
            return
        mupdate = self._config.mupdate
        self._keeper = asyncio.create_task(
            comparer.keep(
                ping_interval_s=mupdate.ping_interval_s,
                retry_min_s=mupdate.retry_min_s,
                retry_max_s=mupdate.retry_max_s,
                beat=self._epochs.beat if self._epochs is not None else None,
            )
        )

    # --- at the end

    async def stop(self) -> None:
        """Say BYE at quiet points; cut off who is still busy after the drain; close store and list."""
        backend, mover, renames = self.backend, self.mover, self.renames
        if backend is None or mover is None or renames is None:
            return
        await drain(backend.sessions, self._config.node.drain_timeout_s)
        await mover.stop()
        await renames.stop()
        if self._epochs is not None and self._keeper is not None:
            await self._epochs.stop()
        if self._submitter is not None:
            await self._submitter.rows.stop()
        if self._imap_scripts is not None:
            await self._imap_scripts.rows.stop()
        behind = (self._keeper, self._matching, self._expiring, self._taking_in, self._counting)
        await backend.announcer.left.close()
        for task in (*behind, self._placed, self._noting):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if backend.duplicates is not None:
            backend.duplicates.close()
        backend.deliveries.close()
        if self._comparer is not None:
            await self._comparer.close()
        if self._bus is not None:
            self._bus.stop()
        if self._presence is not None:
            self._presence.stop()
        if self._client is not None:
            await self._client.close()
        if self._ledger is not None:
            await self._ledger.close()
            self._ledger.mailboxes.close()
        await backend.store.stop()
        self.backend = self.mover = self.renames = None
