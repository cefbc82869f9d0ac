"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 §6.3.1, §6.3.2, §6.4.2; RFC 3691, RFC 7162 §3.2.5)."""

from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import Rights
from murder.model.flag import SEEN
from murder.model.message import MailboxStatus, SeqNum
from murder.roles.backend.changes.updates import View
from murder.roles.backend.hierarchy.mailboxes import Accessible
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.flags import known_keywords
from murder.roles.backend.imap.mail.expunge import remove_deleted
from murder.roles.backend.imap.mail.qresync import known_up_to, tell_missed
from murder.roles.backend.imap.mailboxes.quota import quota_warning
from murder.roles.backend.imap.message_sets import BATCH, marked, ranges_of
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.list import ListEntry, format_list
from murder.wire.imap.mailboxes.moved import FIELD, SeenView
from murder.wire.imap.mailboxes.select import SelectRequest, parse_select
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner

CHANGING_RIGHTS: Final = frozenset("switek")  # any of them makes a SELECT read-write
# the first unseen message is told only if it is no further than this
UNSEEN_LOOK: Final = 10 * BATCH


def run_select(dialogue: BackendImap, command: Command) -> Running:
    """SELECT (RFC 3501 §6.3.1, RFC 7162). The mailbox that was open before is left also where this one fails."""
    return _select(dialogue, command, read_only=False)


def run_examine(dialogue: BackendImap, command: Command) -> Running:
    """EXAMINE (RFC 3501 §6.3.2): as SELECT, and nothing changes, `\\Recent` included."""
    return _select(dialogue, command, read_only=True)


async def _select(dialogue: BackendImap, command: Command, read_only: bool) -> None:
    request = await arguments(command, parse_select)
    if dialogue.view is not None:  # also where this SELECT fails: RFC 3501 §6.3.1
        dialogue.leave_mailbox()
        dialogue.send(status_line(b"*", b"OK", "The previous mailbox is closed", b"CLOSED"))
    _check_qresync(dialogue, request)
    name = dialogue.name_of(request.mailbox)
    await dialogue.backend.notice(name)
    mailbox, accessible = await dialogue.backend.mailboxes.open_for(name, dialogue.user, "r")
    is_examine = read_only
    read_only = read_only or not accessible.rights & CHANGING_RIGHTS
    view = View(mailbox, read_only)
    if request.view is not None:
        await _go_on(dialogue, command, view, accessible, request.view)
        return
    try:
        status = await view.load()
        unseen = await _first_unseen(dialogue, view, status)
        keywords = await known_keywords(view.mailbox)
    except BaseException:
        mailbox.close()
        raise
    dialogue.enter_mailbox(view, accessible)
    dialogue.forms.keywords |= keywords
    if request.condstore:
        dialogue.manner.condstore = True  # HIGHESTMODSEQ is told in any case
    lines = [
        dialogue.forms.announcement(),
        *_counts(view, status, unseen, dialogue, request.mailbox),
        await quota_warning(dialogue, accessible.name),
    ]
    dialogue.send(b"".join(lines))
    if request.qresync is not None and request.qresync.uid_validity == status.uid_validity:
        known = request.qresync.known_uids
        ranges = await ranges_of(known, int(status.uid_next) - 1) if known is not None else None
        floor = await known_up_to(view, request.qresync.seq_match)
        await tell_missed(dialogue, request.qresync.modseq, ranges, floor)
    word = b"READ-ONLY" if is_examine or read_only else b"READ-WRITE"
    dialogue.send(status_line(command.tag, b"OK", "Completed", word))


async def _go_on(
    dialogue: BackendImap, command: Command, view: View, accessible: Accessible, seen: SeenView
) -> None:
    """A frontend's session whose mailbox has moved here: what has happened since is told as to any session that had it
    selected all the time. Raises Refusal where what the client knows cannot be made out."""
    try:
        if FIELD not in dialogue.client_id:
            raise BadSyntax("X-VIEW is for servers of this murder")
        if not await view.take_up(seen.uid_validity, seen.modseq, seen.exists, seen.last_uid):
            raise Refusal(Code.CANNOT, "The client's state of this mailbox is not known here")
        keywords = await known_keywords(view.mailbox)
    except BaseException:
        view.mailbox.close()
        raise
    dialogue.enter_mailbox(view, accessible)
    dialogue.forms.keywords |= keywords
    dialogue.saved = seen.saved
    dialogue.manner.condstore = dialogue.manner.condstore or seen.condstore
    word = b"READ-ONLY" if view.read_only else b"READ-WRITE"
    dialogue.send(status_line(command.tag, b"OK", "Completed", word))


def _check_qresync(dialogue: BackendImap, request: SelectRequest) -> None:
    """Raises BadSyntax for what the client may not ask, by what it has enabled."""
    if request.qresync is None:
        return
    if not dialogue.manner.qresync:
        raise BadSyntax("QRESYNC has to be enabled first")
    if request.qresync.seq_match is not None:
        dialogue.need_numbers()


def _counts(
    view: View, status: MailboxStatus, unseen: SeqNum | None, dialogue: BackendImap, asked: bytes
) -> list[bytes]:
    lines = [b"* %d EXISTS\r\n" % view.exists]
    if not dialogue.manner.imap4rev2:
        lines.append(b"* %d RECENT\r\n" % len(view.recent))
    if unseen is not None:
        lines.append(b"* OK [UNSEEN %d] The first unseen message\r\n" % unseen)
    lines += [
        b"* OK [UIDVALIDITY %d] UIDs are valid\r\n" % status.uid_validity,
        b"* OK [UIDNEXT %d] The next UID\r\n" % status.uid_next,
        b"* OK [HIGHESTMODSEQ %d] The latest change\r\n" % max(1, status.highest_modseq),
        *_listed(dialogue, asked),
        b"* OK [URLMECH INTERNAL] URLs can be authorised\r\n",
        b"* OK [MAILBOXID (%s)] Stays with a rename\r\n" % view.mailbox.mailbox_id.encode(),
    ]
    return lines


def _listed(dialogue: BackendImap, asked: bytes) -> list[bytes]:
    """RFC 9051 §6.3.2: a LIST response tells the mailbox's name as the server writes it, with OLDNAME where the client
    wrote it otherwise (in another composition of its letters)."""
    if not dialogue.manner.imap4rev2 or dialogue.selected is None:
        return []
    separator = dialogue.namespace.separator
    name = dialogue.external(dialogue.selected.name)
    old_name = None if asked.upper() in (name.upper(), b"INBOX") else asked
    return [format_list(ListEntry((), separator, name, old_name=old_name))]


async def _first_unseen(dialogue: BackendImap, view: View, status: MailboxStatus) -> SeqNum | None:
    if not status.unseen or dialogue.manner.imap4rev2 or dialogue.manner.uid_only:
        return None
    known = view.uids[:UNSEEN_LOOK]
    unseen = await marked(view.mailbox, SEEN, known, present=False, most=1)  # type: ignore[arg-type] # UIDs
    return view.seq_of(unseen[0]) if unseen else None


def run_close(dialogue: BackendImap, command: Command) -> Running:
    """CLOSE (RFC 3501 §6.4.2): what is marked as deleted goes, and this client is not told which."""
    Scanner(command.octets, command.start).end()
    return _close(dialogue, command)


async def _close(dialogue: BackendImap, command: Command) -> None:
    view = dialogue.now
    if not view.read_only and "e" in _rights(dialogue):
        await remove_deleted(dialogue, view, None)
    dialogue.leave_mailbox()
    dialogue.send_ok(command)


def _rights(dialogue: BackendImap) -> Rights:
    """What the client may do here; nothing where the mailbox has gone: CLOSE works all the same."""
    try:
        return dialogue.need_rights()
    except Refusal:
        return frozenset()


def run_unselect(dialogue: BackendImap, command: Command) -> Running:
    """UNSELECT (RFC 3691): as CLOSE, and nothing goes."""
    Scanner(command.octets, command.start).end()
    dialogue.leave_mailbox()
    dialogue.send_ok(command)
    return None
