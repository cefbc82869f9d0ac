"""The untagged responses by which a client learns of changes: EXPUNGE or VANISHED, EXISTS, RECENT, FETCH.

RFC 3501 §7.3 and §7.4, RFC 7162 §3.2.10 (VANISHED) and §3.1 (MODSEQ), RFC 9586 (UIDFETCH).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from murder.model.flag import is_keyword
from murder.model.message import Flagged, Message, SeqNum, Uid
from murder.model.pieces import pieces
from murder.model.seqset import compress
from murder.roles.backend.changes.changecache import Block
from murder.roles.backend.changes.updates import Updates, View
from murder.roles.backend.imap.flags import FlagForms
from murder.wire.imap.seqset import format_ranges

MANY_LINES: Final = 16  # fewer are formatted as quickly as looked up


@dataclass(slots=True)
class Manner:
    """How this client wants to be told, by what it has enabled."""

    condstore: bool = False  # with MODSEQ
    qresync: bool = False  # with UID, and VANISHED in place of EXPUNGE
    imap4rev2: bool = False  # without RECENT, SEARCH answered by ESEARCH
    utf8: bool = False  # mailbox names in UTF-8
    uid_with_flags: bool = False  # also without CONDSTORE: NOTIFY (RFC 5465 §5.1)
    uid_only: bool = False  # UIDs in place of sequence numbers, everywhere (RFC 9586)

    def fetch_head(self, seq: SeqNum, uid: Uid) -> bytes:
        """How a FETCH response begins: `* n FETCH (`, or `* uid UIDFETCH (`."""
        return b"* %d UIDFETCH (" % uid if self.uid_only else b"* %d FETCH (" % seq

    @property
    def tells_vanished(self) -> bool:
        """Whether removals are told by UID."""
        return self.qresync or self.uid_only


def format_flag_updates(
    messages: Iterable[tuple[SeqNum, Message | Flagged]],
    forms: FlagForms,
    recent: Collection[Uid],
    manner: Manner,
    with_uid: bool = False,
) -> bytes:
    """`* n FETCH (…)` with the flags of each, and what else this client always wants beside them."""
    lines: list[bytes] = []
    with_uid = (with_uid or manner.condstore) and not manner.uid_only  # RFC 7162 §3.2.4
    for seq, message in messages:
        pieces = b"FLAGS " + forms.form(message.flags, message.uid in recent)
        if with_uid:
            pieces = b"UID %d %s" % (message.uid, pieces)
        if manner.condstore:
            pieces = b"%s MODSEQ (%d)" % (pieces, message.modseq)
        lines.append(b"%s%s)\r\n" % (manner.fetch_head(seq, message.uid), pieces))
    return forms.fresh_words() + b"".join(lines)


def format_shared(
    messages: Sequence[tuple[SeqNum, Flagged]], forms: FlagForms, view: View, manner: Manner
) -> bytes:
    """As `format_flag_updates`, once for all who watch the mailbox and are told the same of it in the same form."""
    cache, recent, with_uid = view.cache, view.recent, manner.uid_with_flags
    if cache is None or not cache.is_shared or len(messages) < MANY_LINES:
        return format_flag_updates(messages, forms, recent, manner, with_uid)
    if recent and any(message.uid in recent for _, message in messages):
        return format_flag_updates(messages, forms, recent, manner, with_uid)
    key = manner.condstore, with_uid, manner.uid_only, len(messages), messages[0], messages[-1]
    known = cache.block(key, messages)
    if known is not None and forms.learn(known.keywords):
        return forms.fresh_words() + known.octets
    kinds = {message.flags for _, message in messages}
    keywords = frozenset(flag for flags in kinds for flag in flags if is_keyword(flag))
    if not forms.learn(keywords):
        return format_flag_updates(messages, forms, recent, manner, with_uid)
    words = forms.fresh_words()
    octets = format_flag_updates(messages, forms, recent, manner, with_uid)
    cache.keep_block(key, Block(messages, keywords, octets))
    return words + octets


def format_numbers(updates: Updates, manner: Manner) -> bytes:
    """Removals, then counts, as responses: all but the flags, which are told behind them."""
    lines: list[bytes] = []
    if updates.expunged:
        if manner.tells_vanished:
            lines.append(b"* VANISHED %s\r\n" % format_ranges(compress(updates.vanished)))
        else:
            for some in pieces(updates.expunged):
                lines.append(b"".join([b"* %d EXPUNGE\r\n" % seq for seq in some]))
    if updates.exists is not None:
        lines.append(b"* %d EXISTS\r\n" % updates.exists)
    if updates.recent is not None and not manner.imap4rev2:
        lines.append(b"* %d RECENT\r\n" % updates.recent)
    return b"".join(lines)
