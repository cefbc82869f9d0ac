"""A backend's hot path: what clients ask all the time, in its commonest spelling, answered in few steps where nothing has
changed since it was asked last.

A command that stands alone in what came, is spelled as `PLAIN` has it and finds nothing to tell but its answer is answered
here, without a task: by what is kept (`answers`), or where a store tells at once what STATUS asks for, and LIST has told all
that there is (`Tree`). Everything else goes to the dialogue, which says the same.
"""

from time import monotonic
from typing import Final

from murder.api.store import Numbers
from murder.errors import Refusal
from murder.model.identity import Login
from murder.model.name import collation_key
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.answers import (
    FETCH,
    LIST,
    NOOP,
    PLAIN,
    PLAIN_OCTETS,
    STATUS,
    Who,
    counted,
    counters_in,
    flags_key,
    who_of,
)
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.list import told_anew
from murder.roles.mupdate.database.record import ACTIVE, FLAGS_AT, entry_of
from murder.wire.imap.mailboxes.status import StatusRequest
from murder.wire.token import astring

CHECK: Final = frozenset({b"CHECK", b"check"})
NOBODY: Final[Who] = ("", False, frozenset(), False)


class Express(BackendImap):
    """See the module."""

    _who: Who = NOBODY
    _who_logged_in: Login | None = None

    def received(self, data: bytes) -> None:
        if (
            len(data) <= PLAIN_OCTETS
            and self._task is None
            and self.login is not None
            and ((notifier := self.notifier) is None or notifier.rests)
            and self.watcher is None
            and self.watched is None
            and not (self._pump_is_due or self._pumping or self.is_closing)
            and (plain := PLAIN.fullmatch(data)) is not None
            and self.session.is_between
            and not (self.connection.writing_paused or self.connection.is_held_back)
        ):
            began = monotonic()
            kind = plain.lastindex
            assert kind is not None
            answer = self._answer(kind, plain[kind])
            if answer is not None:
                self.active_at = self.loop.time()
                self.bad_commands = 0
                octets = b"%s%s OK Completed\r\n" % (answer, plain[1])
                connection = self.connection
                if connection.is_plain and not connection.gathered:
                    connection.transport.write(octets)
                else:
                    connection.write(octets)
                self.backend.answers.told += 1
                name = _NAMES.get(kind) or plain[kind].partition(b" 1:*")[0].upper().decode()
                durations = self.service.figures.durations("commands", self.protocol, name)
                durations.note(monotonic() - began)
                return
        super().received(data)

    def _answer(self, kind: int, octets: bytes) -> bytes | None:
        """What stands before the tagged OK; None where the dialogue has to look."""
        view = self.view
        stamp = self.backend.mailboxes.list.stamp_now()
        if view is None:
            if kind == FETCH or octets in CHECK:
                return None
        elif not self._knows_all(view, stamp):
            return None
        if kind == NOOP:
            return b""
        if kind == FETCH:
            return self._flags(view, octets)
        login, in_utf8 = self.login, self.manner.utf8
        assert login is not None
        who = self._who
        if self._who_logged_in is not login or who[3] != in_utf8:
            self._who_logged_in = login
            who = self._who = who_of(login, in_utf8)
        if self.backend.noticer is not None:  # other software may have made a mailbox
            return None
        if kind == LIST:
            listed = self.backend.answers.lists.get((who, octets))
            if listed is not None and listed.stamp == stamp:
                return listed.octets
            try:
                return told_anew(self, who, octets, stamp)
            except Refusal:  # which the dialogue tells
                return None
        return self._counts((who, octets), stamp) or self._counts_anew((who, octets), stamp)

    def _knows_all(self, view: View, stamp: int) -> bool:
        """Whether there is nothing to tell of the selected mailbox, and it is there still."""
        if view.is_dirty or view.may_be_gone or view.has_pending or self.contexts:
            return False
        tell = view.tell_numbers
        numbers = tell() if tell is not None else None
        if numbers is None or numbers[2] > view.modseq:
            return False
        if stamp != self.looked_at:
            try:
                self.need_rights()
            except Refusal:  # which the dialogue tells
                return False
        return True

    def _flags(self, view: View | None, octets: bytes) -> bytes | None:
        selected = self.selected
        if view is None or selected is None or "r" not in selected.rights:
            return None
        key = flags_key(view.mailbox, self.user, self.manner, self.forms, octets)
        kept = self.backend.answers.flags.get(key)
        if (
            kept is None
            or kept.modseq != view.modseq
            or kept.exists != len(view.uids)
            or kept.last_uid != view.uids[-1]
            or kept.recent != view.recent
            or not kept.keywords <= self.forms.keywords
        ):
            return None
        return kept.octets

    def _counts(self, key: tuple[Who, bytes], stamp: int) -> bytes | None:
        kept = self.backend.answers.counts.get(key)
        if kept is None or (kept.asks_modseq and not self.manner.condstore):
            return None
        if kept.stamp != stamp:
            if self.backend.mailboxes.list.row(kept.name) != kept.row:
                return None
            kept.stamp = stamp
        if kept.asks_recent and self.view is not None:
            if self.view.mailbox.mailbox_id == kept.mailbox_id:
                return None  # what is recent for this session is so in STATUS too
        numbers: Numbers | None = kept.at_once()
        if numbers is None:
            return None
        if numbers != kept.numbers:
            if kept.template is None or kept.pick is None:
                return None
            kept.octets, kept.numbers = kept.template % kept.pick(numbers), numbers
        return kept.octets

    def _counts_anew(self, key: tuple[Who, bytes], stamp: int) -> bytes | None:
        """STATUS of a mailbox that has not been asked for lately, or in another way."""
        count, login = self.backend.count_at_once, self.login
        written, _, asked = key[1][7:-1].rpartition(b" (")
        counters = counters_in(asked)
        if count is None or counters is None or login is None:
            return None
        if counters.asks_modseq and not self.manner.condstore:
            return None
        if self.manner.utf8 and b"&" in written:  # which is no more than that there
            return None
        written = written.strip(b'"')
        mailboxes = self.backend.mailboxes
        try:
            name = self.namespace.internal(written, login.user)
            row = mailboxes.list.row(name)
            if row is None or not row[FLAGS_AT] & ACTIVE:
                return None
            if "r" not in mailboxes.rights(entry_of(collation_key(name), row), login):
                return None
            standing = count(name, login.user)
        except Refusal:  # which the dialogue tells
            return None
        if standing is None:
            return None
        mailbox_id, numbers, tell = standing
        is_unknown = counters.asks_unseen and numbers[5] < 0
        if counters.asks_recent:  # somebody has to count them, or they are recent for this session
            view = self.view
            is_selected = view is not None and view.mailbox.mailbox_id == mailbox_id
            is_unknown = is_unknown or is_selected or numbers[3] < numbers[1]
        if is_unknown:
            return None
        text = counters.text % counters.pick((*numbers, 0))
        answer = b"* STATUS %s (%s)\r\n" % (astring(written), text)
        request = StatusRequest(written, counters.items)
        keep = counted(name, mailbox_id, tell, stamp, row, numbers, request, answer)
        if keep is not None:
            self.backend.answers.counts.keep(key, keep)
        return answer


_NAMES: Final = {LIST: "LIST", STATUS: "STATUS"}
