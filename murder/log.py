"""The log: structlog set up once a process, secrets masked, every event name in one list.

An event is a constant `noun.happened`; facts are keys. Bound once on accept: `role`, `protocol`, `cid`, `peer`; at
login: `user`. One line is one write to standard error, so lines of several workers do not mix, and a log that
cannot be written never stops the mail.
"""

import io
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

Log = FilteringBoundLogger

STDERR: Final = 2
RECENT_LINES: Final = 300
RECENT_CHARACTERS: Final = 1000
MOST_SHAPES: Final = 200  # of lines of events that are said often; there are a few
MASK: Final = "***"
SECRETS: Final = frozenset(
    {"authorization", "credentials", "initial_response", "passwd", "password", "secret", "token"}
)
LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# As sd-daemon(3) has them: how the journal, when it reads standard error, knows of levels (`journalctl -p err`).
PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}

# Every event this program can log, and what it means: an operator's list for filters and alarms, printed by
# `murder log events`. tests/rooms/test_log.py compares it with the code, both ways.
EVENTS: Final[Mapping[str, str]] = {
    "announce.repaired": "What a crash left of a CREATE, DELETE or RENAME was finished or undone.",
    "announce.rollback_deferred": "A change failed, and the master could not be told to undo it; it is told later.",
    "audit.not_written": "An act whose `line` the audit trail could not be given; it was done, and `LOST` stands there.",
    "backup.reader_gone": "The connection of a backup ended: the backup was complete, or the connection broke.",
    "backup.restored": "A mailbox, with those below it, was restored from a backup, and is served.",
    "command.crashed": "A command ended with a bug of murder; the traceback is in the line. Report it.",
    "command.malformed": "A client sent a command with bad syntax and got BAD (POP3: -ERR).",
    "command.repeated": "A connection broke in a CREATE, DELETE, RENAME or SETACL; the command was sent once more.",
    "config.needs_restart": "A key was changed that a reload cannot apply; it takes effect at the next start.",
    "config.refused": "murder.toml has a fault; a running node goes on with the old one.",
    "config.reloaded": "murder.toml was read again; `changed` names the keys.",
    "connection.not_accepted": "The process has no file descriptors left; it accepts again after a pause.",
    "connection.protocol_error": "A peer sent what is not the protocol of that port; the connection was closed.",
    "connection.refused": "A limit on connections was reached; `limit` is its key, `count` how many.",
    "control.asked": "Somebody asked this node something through its control socket or port.",
    "control.refused": "Somebody without an operator's certificate asked the control port.",
    "control.unavailable": "The control socket could not be opened; mail flows, but nobody can ask this node.",
    "copy.not_undone": "A COPY between backends failed, and what was already copied stays at the target.",
    "dns.crashed": "Updating users' names in DNS met a bug of murder; the traceback is in the line. Tried again; report it.",
    "dns.failed": "Users' names in DNS could not be updated from the mailbox list; tried again after `retry_after_s`.",
    "dns.updated": "Users' names in DNS were updated from the mailbox list: `put` were added or changed, `removed` deleted.",
    "engine.available": "The masters' shared log answers again.",
    "engine.list_taken": "This master has copied the whole list from the masters' shared log.",
    "engine.moved": "The mailbox list is kept by another engine now (`engine`); changes had to wait for `elapsed_ms`.",
    "engine.not_moved": "The mailbox list could not be moved to another engine; `problem` says why.",
    "engine.put_back": "The masters' shared log was restored from an older copy; what this master had is kept (`aside`).",
    "engine.settled": "A move of the mailbox list was interrupted; the shared log tells where the list is (`engine`).",
    "engine.unavailable": "The masters' shared log does not answer, or refuses; the list can be read, but not changed.",
    "expiry.applied": "A rule of `[expiry]` has removed, or archived, mail of a mailbox by its age.",
    "expiry.not_applied": "A rule of `[expiry]` could not be applied to a mailbox; `problem` says why.",
    "expunged.purged": "Expunged messages that had been kept for their time were removed for good.",
    "library.logged": "A library wrote to Python's own log.",
    "list.incomplete": "A backend did not answer a LIST or LSUB; the client got the rest and a warning.",
    "list.journal_failed": "The journal of the master's list cannot be written; changes go straight into the list.",
    "list.journal_replayed": "The node was killed, or lost power; what it had acknowledged was read from the journal.",
    "list.not_settled": "The journal of the list cannot be copied into the list's file (`problem`); nothing is lost.",
    "list.not_written": "The file of the mailbox list (`path`) cannot be written (`problem`); the change was refused.",
    "log.lost": "The log was not read for a while (a journal that stood still), and so many `lines` are missing.",
    "login.by_master": "A master user logged in as another user; `master` is who.",
    "login.expired": "A session's token, password or certificate has expired; `cut_off`: a command was running.",
    "login.failed": "A login was refused.",
    "login.succeeded": "A user, node or operator logged in.",
    "mailbox.adopted": "A mailbox was in the store and not in the list; it was added to the list.",
    "mailbox.beyond_limit": "A node asked for more rows, octets or identifiers in the list than it may have; refused.",
    "mailbox.conflict": "Two nodes want one mailbox name; the later one was refused (`murder ctl conflicts`).",
    "mailbox.discovered": "A mailbox that another program made in the store was found and announced.",
    "mailbox.expired": "A deleted mailbox was removed for good when its delay was over.",
    "mailbox.followed": "A selected mailbox moved; the frontend selected it at its new backend.",
    "mailbox.missing": "A mailbox was in the list and not in the store; an empty one was made.",
    "mailbox.not_created": "A mailbox could not be created at a first login, or when it was found in the store.",
    "mailbox.not_expired": "Deleted mailboxes whose time is over could not be removed; it is tried again.",
    "mailbox.not_followed": "A selected mailbox moved and could not be selected again; the session was closed.",
    "mailbox.quarantined": "The master says that another backend has this mailbox; the mail here was moved aside.",
    "mailbox.returned": "A mailbox came back from quarantine under its own name.",
    "mailbox.taken": "An administrator (`mailbox force`) gave a mailbox to another backend.",
    "mailbox.unreadable": "A mailbox of the list cannot be opened in the store.",
    "master.back": "The mailbox list's master answers again.",
    "master.retired": "The list was moved away from this master; the nodes that followed it here were told to go elsewhere.",
    "master.stood_still": "A master, one of several, did not run for a second; all who were connected connect again.",
    "master.unreachable": "The mailbox list's master does not answer; CREATE, DELETE and RENAME are refused.",
    "message.appended": 'A client or a script has added a message to a mailbox (`[log] mail = "full"`).',
    "message.copied": 'A client has copied messages; `to` is where the copies are (`[log] mail = "full"`).',
    "message.delivered": "A message was stored for a recipient, or `filtered` says what a filter did; `id` is in the reply.",
    "message.duplicate": "A message was not delivered again: its Message-ID came to this mailbox before.",
    "message.expunged": 'A client, or a rule of `[expiry]`, has removed messages (`[log] mail = "full"`).',
    "message.filtered": "Scripts, or a plugin's filter, decided about a message; `actions` by script and line.",
    "message.incomplete": "A sender's connection ended in the middle of a message; nobody got it. The sender tries again.",
    "message.moved": 'A client, or a rule of `[expiry]`, moved messages; `to` is where they are (`[log] mail = "full"`).',
    "message.not_filed": "A script or filter named a mailbox that is not available; the message was kept instead.",
    "message.refused": "A recipient, or the message for them, was refused; `reply` is what the sender was told.",
    "message.relayed": "A backend has accepted or refused a message for a recipient; `saved_as` is the backend's id of it.",
    "message.restored": 'An operator has restored messages of a backup; `to` is where they are (`[log] mail = "full"`).',
    "message.unexpunged": 'An operator has brought expunged messages back; `to` is where they are (`[log] mail = "full"`).',
    "move.aborted": "A move was given up; the mailbox stays at its source.",
    "move.bad_request": "The other backend of a move sent a request with bad syntax.",
    "move.begun": "A move of a mailbox to another backend has started.",
    "move.crashed": "A move met a bug, or its journal cannot be read; it is tried again.",
    "move.differs": "What arrived from a Cyrus is not what it announced.",
    "move.done": "A move is complete: the mailbox is served by its target.",
    "move.expunged_stay": "The target of a move takes no expunged messages: they stay behind with the old copy.",
    "move.failed": "A move failed for good; `murder ctl move resume` continues one that had begun.",
    "move.forgotten": "The old copy of a moved mailbox was removed, or is in use again (`back`).",
    "move.interrupted": "A move cannot continue now; it is tried again.",
    "move.peer_away": "The other backend of a move does not answer; it is asked again.",
    "move.peer_gone": "The connection of a move broke.",
    "move.source_modified": "The old copy of a moved mailbox has changed; it is kept until `move forget`.",
    "move.taken": "A mailbox has moved here from a Cyrus.",
    "multiplexor.table_failed": "The table of users and servers could not be read again; the one read before stays in use.",
    "notify.incomplete": "A backend does not answer; a NOTIFY of a client lacks its mailboxes.",
    "outgoing.deferred": "Mail of a user's script could not be sent now; it is tried again.",
    "outgoing.failed": "Mail of a user's script was refused, or not accepted in time: given up, or kept if nothing else is.",
    "outgoing.full": "Too much mail of scripts waits, by the key `limit`: what is to be redirected is refused for now.",
    "outgoing.sent": "Mail of a user's script was sent.",
    "outgoing.undelivered": "Redirected mail that nobody takes, and whose user has gone, lies in a file now.",
    "page.crashed": "A request over HTTP met a bug of murder; the traceback is in the line. Report it.",
    "plugin.failed": "A plugin raised something when its role stopped, or while it was asked; `hook` says where.",
    "program.failed": "A program of `[sieve.programs]` failed, or this user has none of that name; `problem` says why.",
    "referral.unknown": "The master could not be asked where a mailbox is; the client got no referral.",
    "rename.bad_request": "Another backend sent a request with bad syntax about a RENAME.",
    "rename.begun": "A RENAME, or a deletion, of a whole hierarchy has started, with the other `backends` that have a part.",
    "rename.crashed": "A RENAME over several backends met a bug, or a disk that is full; it is tried again.",
    "rename.decided": "An operator has ended this backend's part of a RENAME by hand.",
    "rename.done": "A RENAME, or a deletion (no `target`), of a whole hierarchy is complete at all backends.",
    "rename.in_doubt": "A RENAME over several backends waits for another of them; it is asked again.",
    "rename.part_ended": "This backend has done, or undone, its part of a RENAME (`outcome`).",
    "rename.peer_gone": "The connection of a RENAME over several backends broke.",
    "rename.refused": "A RENAME over several backends was not possible; nothing has changed.",
    "rename.resumed": "A RENAME that a dead process had begun was finished or undone (`outcome`).",
    "replica.behind": "The frontend's mailbox list could not be brought up to date for a login.",
    "replica.crashed": "Following the mailbox list ended with a bug; it starts again.",
    "replica.disconnected": "The mailbox list's master is away; the list is served as it was.",
    "replica.lacking": "A master with another history lacks `count` mailboxes: names it lacks are `try again later`.",
    "replica.synchronised": "The mailbox list is complete and follows the master.",
    "resync.done": "The backend's mailbox list and the master's were compared and agree.",
    "resync.failed": "A backend could not compare its mailboxes with the master's, for a `problem` of its own; tried again.",
    "resync.refused": "The backend's mailbox list and the master's differ, and neither may be changed: an operator decides.",
    "resync.resumed": "This backend compares its mailboxes with the master's again.",
    "role.failed": "A role could not be stopped cleanly; the process ends nevertheless.",
    "role.reloaded": "A role uses the configuration that was read again.",
    "role.started": "A worker of a role accepts connections.",
    "role.stopped": "A worker of a role has stopped cleanly.",
    "role.stuck": "A role, or a plugin of it, did not stop in time.",
    "script.changed": "A user put, activated, renamed or deleted a Sieve script (`change`).",
    "script.failed": "A Sieve script failed, or cannot be read (`problem` has the line); it is left out.",
    "script.not_read": "A file of `[sieve]` could not be read at a reload; the scripts read before stay in use.",
    "script.not_run": "Scripts could not be run for what a client did by IMAP; `problem` says why.",
    "script.not_taken_in": "Sieve scripts that came as files could not be stored as messages; it is tried again.",
    "script.not_told": "The note that a user's script fails could not be put into their INBOX.",
    "script.taken_in": "Sieve scripts that a Cyrus has sent as files were stored as messages.",
    "server.ready": "The node is up: all its roles accept connections.",
    "server.stopped": "The node has stopped cleanly.",
    "store.epoch_unknown": "The master could not be asked whether the store is an older copy.",
    "store.not_counted": "The messages of the store could not be counted (`problem`); it is tried again.",
    "store.restored": "The store is an older copy than the master knows; mailboxes got new UIDVALIDITYs.",
    "store.unmatched": "Comparing the list with the store ended with a bug.",
    "subscriber.began": "A node has begun to follow the mailbox list.",
    "subscriber.cut": "A node that follows the mailbox list was too slow or broken; it connects again.",
    "subscribers.slow": "Nodes do not read what waits for them (mupdate.max_streams_bytes); they get more as they take it.",
    "supervisor.lost": "The supervising process is gone; this worker ends.",
    "tls.distrusted": "After a reload a connection's certificate is no longer trusted; it was closed.",
    "tls.failed": "A TLS handshake failed.",
    "tls.revoked": "A peer showed a revoked certificate.",
    "traces.lost": "A role has ended, and the collector of `[traces]` had not taken so many `spans` in its last second.",
    "traces.not_sent": "The collector of `[traces]` does not accept spans; they wait, as far as there is room.",
    "trail.not_written": "A file of `murder ctl message trace` or `audit` cannot be written; mail goes on without it.",
    "upstream.circuit_closed": "A backend that had failed several times in a row works again.",
    "upstream.circuit_opened": "A backend failed several times in a row; only a test connection is tried now and then.",
    "upstream.connected": "A frontend opened a connection to a backend for a session.",
    "upstream.failed": "A connection or login to a backend, or to the master, failed.",
    "upstream.lost": "A backend closed a connection that a session was using.",
    "version.misfit": "The master, or a backend, has a version that this one was not tested with.",
    "worker.died": "A worker process ended unexpectedly; it is restarted. The lines before it say why.",
    "worker.failover_started": "A worker was silent or had died; another accepts its new connections.",
    "worker.ready": "A worker process has started and accepts connections.",
    "worker.stuck": "A worker did nothing for `node.worker_timeout_s` and is replaced; `stack` is where it was.",
}


def logger(**bound: object) -> Log:
    """A logger with these facts bound; cheap, and usable before `set_up`."""
    return cast(Log, structlog.get_logger(**bound))


class Recent:
    """The last lines of this process, for who asks a node from elsewhere: so many, each cut where it is long."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=RECENT_LINES)

    def note(self, level: str, line: str) -> None:
        self.lines.append((time.time(), level, line[:RECENT_CHARACTERS]))

    def found(self, word: str, least: str) -> list[tuple[float, str, str]]:
        """Time, level and text of those in which the word stands, in upper or lower case, from that level on."""
        wanted, limit = word.lower(), LEVELS[least]
        return [
            line
            for line in list(self.lines)
            if LEVELS[line[1]] >= limit and (not wanted or wanted in line[2].lower())
        ]


recent: Final = Recent()


_quoted: Final = json.encoder.encode_basestring_ascii


def encoder(*, ascii_only: bool = True) -> Callable[[object], str]:
    """JSON as `json.dumps` writes it, in one step of C where there is one."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(default=readable, ensure_ascii=ascii_only).encode
    quoted = _quoted if ascii_only else json.encoder.encode_basestring
    pieces = make(None, readable, quoted, None, ": ", ", ", False, False, True)
    return lambda line: "".join(pieces(line, 0))


def readable(value: object) -> str:
    """How JSON shows what it has no form for: octets as text, never a failure."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


_json: Final = encoder()


class PlainLog:
    """What is said at each login and of each message, without structlog's dozen of steps: where lines are JSON, the same
    line in one step. All but the facts is written once for each event with facts of these names, and the time of day once a
    second."""

    __slots__ = (
        "_day",
        "_says",
        "_second",
        "_shapes",
        "constants",
        "is_json",
        "priority",
        "threshold",
    )

    def __init__(self) -> None:
        self.threshold = logging.INFO
        self.is_json = False
        self.constants: Mapping[str, object] = {}
        self.priority = ""
        self._says = False
        self._shapes: dict[tuple[str, ...], tuple[str, str]] = {}
        self._second, self._day = 0, ""

    def set_up(
        self, threshold: int, is_json: bool, constants: Mapping[str, object], priority: str
    ) -> None:
        """See the attributes; `constants` stand in every line."""
        self.threshold, self.is_json = threshold, is_json
        self.constants, self.priority = dict(constants), priority
        self._says = is_json and threshold <= logging.INFO
        self._shapes.clear()

    def info(
        self, event: str, facts: Mapping[str, object], *, is_kept: bool = False
    ) -> tuple[str, str]:
        """As `logger(**facts).info(event)`. None of the facts is a secret. Where somebody keeps it elsewhere, too: its time,
        and what stands in the braces of the facts as JSON, in letters of ASCII. No call more than there must be: this is
        the way of every session."""
        if not self.is_json:
            logger(**facts).info(event)
        if not (self._says or is_kept):
            return "", ""
        names = (event, *facts)
        shape, end = self._shapes.get(names) or self._shape(names)
        now = time.time()
        second = int(now)
        if second != self._second:
            self._day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        values: list[object] = []
        for value in facts.values():
            if type(value) is str:
                values.append(_quoted(value))
            elif type(value) is int:
                values.append(value)
            elif value is False:
                values.append("false")
            elif type(value) is bytes:
                values.append(_quoted(readable(value)))
            else:
                values.append(_json(value))
        text = shape % tuple(values)
        at = f"{self._day}.{int((now - second) * 1e6):06d}Z"
        if self._says:
            line = f'{{{text}{end}{at}"}}'
            recent.lines.append((now, "info", line[:RECENT_CHARACTERS]))  # as `note` does
            try:
                os.write(STDERR, f"{self.priority}{line}\n".encode())
            except OSError:
                _unwritten.append(1)  # as `_Sink`
            else:
                if _unwritten:
                    _tell_lost_log()
        return at, text

    def _shape(self, names: tuple[str, ...]) -> tuple[str, str]:
        """Of this event with facts of these names: a place for each of those, and what follows, as far as the time."""
        event, *facts = names
        bound = {name: value for name, value in self.constants.items() if name not in facts}
        fixed = _json({"event": event, **bound, "level": "info"})[1:-1]
        places = ", ".join(_quoted(name).replace("%", "%%") + ": %s" for name in facts)
        shape = places, f'{", " if facts else ""}{fixed}, "timestamp": "'
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        self._shapes[names] = shape
        return shape


plain_log: Final = PlainLog()

Listener = Callable[[str, str, Mapping[str, object]], None]
"""Who is told what happens: the event, its level, its facts."""


class _Told:
    """Tells listeners before the line is written; and ends what the log itself does not show. What a listener logs is told
    to nobody, and one that raises is let go."""

    def __init__(self) -> None:
        self.listeners: list[tuple[str, Listener]] = []
        self.threshold = logging.INFO
        self._telling = threading.local()

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        level = LEVELS[event["level"]]
        if level >= logging.INFO and not getattr(self._telling, "now", False):
            self._telling.now = True
            try:
                self._tell(event)
            finally:
                self._telling.now = False
        if level < self.threshold:
            raise structlog.DropEvent
        return event

    def _tell(self, event: Mapping[str, Any]) -> None:
        facts = MappingProxyType({key: event[key] for key in event.keys() - _NO_FACTS})
        for pair in tuple(self.listeners):
            name, listener = pair
            try:
                listener(event["event"], event["level"], facts)
            except Exception as error:  # noqa: BLE001 - the end of a listener
                self.listeners = [present for present in self.listeners if present is not pair]
                logger().error("plugin.failed", plugin=name, hook="happened", exc_info=error)


_NO_FACTS: Final = frozenset({"event", "level", "timestamp"})
_told: Final = _Told()
_set_up_as: list[tuple[str, str, Mapping[str, object]]] = []  # the last one


def listen(listeners: Sequence[tuple[str, Listener]]) -> None:
    """From now on these are told of every event of this process from `info` on, also of those that the log does not show;
    each with the name of its plugin. Nobody: and nothing is any slower for it."""
    _told.listeners = list(listeners)
    if _set_up_as:
        level, form, bound = _set_up_as[-1]
        set_up(level, form, **bound)


def set_up(level: str, form: str, **bound: object) -> None:
    """Configure this process's log, with `[log] level` and `[log] format`. May be called again.

    `bound` (node, worker …) stands in every line.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = form == "text" or (form == "auto" and is_terminal)
    threshold = LEVELS[level]
    _set_up_as[:] = [(level, form, bound)]
    listeners, heard = _told.listeners, min(threshold, logging.INFO)
    _told.threshold = threshold
    sink = _Sink({level: priority_of(level) for level in PRIORITIES})
    if is_journal():  # which may stand still: nobody waits for it
        os.set_blocking(STDERR, False)
    structlog.configure(
        processors=[
            _Constants(bound),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not as_text),
            mask_secrets,
            *((_told,) if listeners else ()),
            *(_text_renderers(is_terminal) if as_text else _json_renderers()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(heard if listeners else threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    plain_log.set_up(threshold, not (as_text or listeners), bound, priority_of("info"))
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(threshold, logging.WARNING))


def mask_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The last guard: a key that names a secret never shows its value, whoever logged it."""
    for name in SECRETS & event.keys():
        event[name] = MASK
    return event


class _Constants:
    """Adds what is the same in all lines of this process."""

    def __init__(self, bound: Mapping[str, object]) -> None:
        self._bound = dict(bound)

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in self._bound.items():
            event.setdefault(name, value)
        return event


def _text_renderers(colours: bool) -> list[Processor]:
    return [
        _harmless,
        structlog.dev.ConsoleRenderer(
            colors=colours,
            pad_event_to=24,
            exception_formatter=_traceback,
        ),
    ]


def _json_renderers() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=readable),
    ]


class _Escaped:
    """Text that is shown as Python writes it: what is no printable character stands as an escape."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _harmless(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Octets become text; what a peer chose moves no cursor, sets no title, and turns no line around."""
    for name, value in event.items():
        if isinstance(value, bytes):
            value = event[name] = readable(value)
        if isinstance(value, str) and not value.isprintable():
            event[name] = _Escaped(value)
    return event


def _traceback(out: TextIO, exc_info: Any) -> None:
    """Without local variables, and as harmless as the rest: indented, none of its lines looks like one of the log's."""
    buffer = io.StringIO()
    structlog.dev.plain_traceback(buffer, exc_info)
    for line in buffer.getvalue().splitlines(keepends=True):
        text = line.rstrip("\n")
        out.write("  " + (text if text.isprintable() else repr(text)[1:-1]))
        out.write(line[len(text) :])


def is_journal() -> bool:
    """Whether the journal reads standard error (systemd.exec(5), JOURNAL_STREAM), and not a file or a pipe of ours."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        seen = os.fstat(STDERR)
    except OSError:
        return False
    return named == f"{seen.st_dev}:{seen.st_ino}"


def priority_of(level: str) -> str:
    """What a line of that level begins with: nothing, unless the journal reads it."""
    return f"<{PRIORITIES[level]}>" if is_journal() else ""


_unwritten: Final[deque[int]] = deque(maxlen=1_000_000)  # a 1 for each line, or how many those are


def _tell_lost_log() -> None:
    """A line has been written where others were not."""
    lines = sum(_unwritten)
    _unwritten.clear()
    own_log = logger()
    own_log.warning("log.lost", lines=lines)
    if _unwritten:  # there was room for that line and not for this
        _unwritten.append(lines)


class _Sink:
    """Where rendered lines go: one write each. `priorities` has what each level's lines begin with."""

    def __init__(self, priorities: Mapping[str, str]) -> None:
        self._priorities = priorities

    def _write(self, level: str, line: str) -> None:
        recent.note(level, line)
        if priority := self._priorities[level]:
            line = priority + line.replace("\n", f"\n{priority}")
        try:
            os.write(STDERR, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            _unwritten.append(1)  # the log's reader has gone, or stands still; mail goes on
            return
        if _unwritten:
            _tell_lost_log()

    def debug(self, line: str) -> None:
        self._write("debug", line)

    def info(self, line: str) -> None:
        self._write("info", line)

    def warning(self, line: str) -> None:
        self._write("warning", line)

    def error(self, line: str) -> None:
        self._write("error", line)

    msg = log = info
    warn = warning
    critical = exception = fatal = error


# The event loop says so at each write to a peer that has gone, and the connection's own end is told. A peer that has sent
# many commands ahead and goes would write hundreds of lines.
_SAID_AT_EACH_WRITE: Final = frozenset(
    {"SSL connection is closed", "socket.send() raised exception."}
)


class _Bridge(logging.Handler):
    """What libraries say through `logging` (asyncio: a task's lost exception) comes out as our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in _SAID_AT_EACH_WRITE:
            return
        log = logger(library=record.name, text=record.getMessage())
        failed = record.exc_info if record.exc_info and record.exc_info[0] else None
        if record.levelno >= logging.ERROR:
            log.error("library.logged", exc_info=failed)
        else:
            log.warning("library.logged", exc_info=failed)
