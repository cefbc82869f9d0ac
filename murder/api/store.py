"""What a mailbox store is: the contract between a backend and the plugin that keeps its messages.

A store keeps messages, flags and UIDs. It does not keep access lists, the hierarchy or who may see what: those
are in the backend's mailbox list, one code for every store. Required is what stands in `MailboxStore` and
`Mailbox`; every further power is a Protocol of its own, asked for with `isinstance`, so that the contract grows
without breaking stores that exist.

Rules that hold for every method:

* Methods are coroutines and must not block the event loop for longer than a disk read from cache takes; slow
  work belongs in a thread. A coroutine that never suspends is fine, and fast.
* **Returned means durable**: when a changing method returns, a power cut cannot undo it.
* A change is atomic: after a crash it has happened as a whole or not at all, for *all* messages of one call.
* UIDs only grow within one UIDVALIDITY and are never used again; mod-sequences only grow.
* Several processes (workers) may have the same store, and the same mailbox, open at once.
* Refusals are `Refusal` (NONEXISTENT, ALREADY_EXISTS, OVER_QUOTA, …); a disk that is full is
  `Refusal(OVER_QUOTA)` with a text that says so; anything else that goes wrong is an exception that names the file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from murder.model.flag import FlagChange as FlagChange
from murder.model.message import (
    Changes,
    Flagged,
    MailboxStatus,
    Message,
    ModSeq,
    Uid,
    UidValidity,
)
from murder.model.name import MailboxName


@dataclass(frozen=True, slots=True)
class StoredMailbox:
    """A mailbox as its store knows it. `mailbox_id` is stable over renames (RFC 8474)."""

    name: MailboxName
    mailbox_id: str
    uid_validity: UidValidity


class Incoming(Protocol):
    """The octets of one message on their way in: small ones in memory, larger in a file of the store's.

    One Incoming may be appended to several mailboxes (one stored copy for many recipients, where the store can).
    The caller writes one piece after the other and always ends it with `close`, appended or not; a call that is cancelled
    is followed by `close` and by nothing else. Pieces are as they come from the network, up to some 100 KiB, thousands to
    a message: `write` had better wait for something now and then only, not in every call.
    """

    @property
    def size(self) -> int: ...

    async def write(self, data: bytes | memoryview) -> None:
        """Add octets; `data` is the caller's again on return. Raises Refusal(OVER_QUOTA) where the disk is full."""
        ...

    def octets(self) -> memoryview:
        """All octets so far; valid until `close` (mapped, not read, where they are in a file)."""
        ...

    async def close(self) -> None:
        """Let go of what is held. Can be done twice, and while an `append` that was cancelled still goes on: that is
        whole or absent."""
        ...


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append. Octets carry CRLF line ends as they came; a store never alters them."""

    incoming: Incoming
    flags: frozenset[str] = field(default_factory=frozenset)
    internal_date: datetime | None = None  # None: now
    email_id: str = ""  # "": a new one
    told_size: int = 0  # as in `Message`; for stores that keep it


@dataclass(frozen=True, slots=True)
class Once:
    """By what a delivery is known again, where its sender tries again because nobody has told them that it is done. `key`:
    the same then, `by`: the process that does it. `has_died`: whether such a process has died so soon after this time, in
    seconds since 1970, that perhaps nobody was told; asked in any thread, may wait for the disk."""

    key: bytes
    by: str
    has_died: Callable[[str, float], bool]


NO_CHANGE: Final = ModSeq(0)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a flag change did: the messages as this call left them, and those left alone because they had changed
    since `unchanged_since` (RFC 7162 §3.1.3). Messages that no longer exist are in neither. `made`: the mod-sequence that
    this change has brought the mailbox to, and that no other change has; 0: nothing has changed, or that is not told."""

    messages: Sequence[Message]
    modified: Sequence[Uid] = ()
    made: ModSeq = NO_CHANGE


class Mailbox(Protocol):
    """One open mailbox, seen by one reader. Cheap to make and to drop; no lock is held while it is open.

    The reader matters for `\\Seen` alone: in a mailbox that is not their own, each reader has their own.
    """

    @property
    def name(self) -> MailboxName: ...

    @property
    def mailbox_id(self) -> str: ...

    async def status(self) -> MailboxStatus:
        """Counts; independent of the mailbox's size, or nearly."""
        ...

    async def uids(self) -> Sequence[Uid]:
        """All UIDs, ascending: the sequence numbers of a new session."""
        ...

    async def messages(self, uids: Sequence[Uid] | None = None) -> Sequence[Message]:
        """These messages (None: all) in UID order; such as do not exist are left out."""
        ...

    async def changes(self, since: ModSeq) -> Changes:
        """What happened after `since`; cheap when nothing did (it is asked after every command)."""
        ...

    async def octets(self, uid: Uid) -> memoryview:
        """The whole message (mapped where it is large). Raises Refusal(EXPUNGE_ISSUED) if it is gone."""
        ...

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """Add them all, or none, with consecutive ascending UIDs; calls from many tasks share commits."""
        ...

    async def change_flags(
        self,
        uids: Sequence[Uid],
        change: FlagChange,
        flags: frozenset[str],
        unchanged_since: ModSeq | None = None,
    ) -> Stored:
        """Change flags; a message whose flags stay the same keeps its mod-sequence."""
        ...

    async def expunge(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """Remove these messages whatever their flags; returns those that this call removed."""
        ...

    async def copy(self, uids: Sequence[Uid], target: "Mailbox") -> Mapping[Uid, Uid]:
        """Copy within the store, octets, flags and dates: source UID to new UID, ascending on both sides.
        Messages that no longer exist are left out."""
        ...

    async def move(self, uids: Sequence[Uid], target: "Mailbox") -> Mapping[Uid, Uid]:
        """As `copy`, and gone from here, atomically (RFC 6851 §3.3)."""
        ...

    async def claim_recent(self) -> Collection[Uid]:
        """The UIDs that are `\\Recent` for this session and for no later one (RFC 3501 §2.3.2)."""
        ...

    async def summary(self, uid: Uid) -> bytes | None:
        """What `keep_summary` kept; None if nothing, or if the store keeps none."""
        ...

    async def keep_summary(self, uid: Uid, summary: bytes) -> None:
        """Keep a few KiB derived from the octets (MIME structure). A hint: may be lost, need not be durable."""
        ...

    def close(self) -> None: ...


class MailboxStore(Protocol):
    """All mailboxes of one backend's partition(s)."""

    async def start(self) -> None:
        """Open; finish or undo whatever a crash left. Raises Refusal with a sentence for an operator."""
        ...

    async def stop(self) -> None: ...

    async def mailboxes(self) -> Sequence[StoredMailbox]:
        """All that exist, in any order. The backend compares them with its list at start. What cannot be read
        (damaged) is left out, and `create` of it raises Refusal(UNAVAILABLE)."""
        ...

    async def create(
        self, name: MailboxName, partition: str, mailbox_id: str = ""
    ) -> StoredMailbox:
        """Make it, empty, with a UIDVALIDITY never used for this name before. ALREADY_EXISTS if there."""
        ...

    async def delete(self, name: MailboxName) -> None:
        """Remove it and its messages. Doing it twice is no error (steps are repeated after a crash)."""
        ...

    async def rename(self, old: MailboxName, new: MailboxName) -> None:
        """This one mailbox, not those below. UIDs stay. Repeating it after it happened is no error."""
        ...

    async def open(self, name: MailboxName, reader: str) -> Mailbox:
        """Raises Refusal(NONEXISTENT)."""
        ...

    def incoming(self) -> Incoming:
        """A message may come; nothing of it is there yet. What has to be opened for it is opened by its first `write`."""
        ...

    async def subscriptions(self, user: str) -> Collection[MailboxName]:
        """All that the user subscribed to, existing or not."""
        ...

    async def subscribe(self, user: str, name: MailboxName, subscribed: bool) -> None: ...

    def watch(self, listener: "StoreListener") -> None:
        """Tell `listener` of every change made through this object (other processes are told by the backend)."""
        ...


class StoreListener(Protocol):
    """Who wants to know that a mailbox has changed."""

    def mailbox_changed(self, mailbox_id: str) -> None: ...


@runtime_checkable
class NoticesMailboxes(Protocol):
    """A power of a `MailboxStore` in which other software makes mailboxes too."""

    async def made_beside(self, name: MailboxName) -> Sequence[MailboxName]:
        """All mailboxes of the tree that this one is in, where some may have been made since this was last asked; most
        often none. Costs no more than a look at a folder's date. Raises Refusal."""
        ...


@runtime_checkable
class FindsByFlag(Protocol):
    """A power of a `Mailbox`: to find messages by one system flag without reading them all (EXPUNGE, SELECT's UNSEEN)."""

    async def find_by_flag(
        self, flag: str, *, present: bool = True, most: int | None = None
    ) -> Sequence[Uid]:
        """The lowest `most` UIDs (None: all) of messages with this system flag, or without it; ascending."""
        ...


@runtime_checkable
class CountsSubscriptions(Protocol):
    """A power of a `MailboxStore`: to say how many subscriptions a user has without reading them all (SUBSCRIBE)."""

    async def count_subscriptions(self, user: str, most: int) -> int:
        """How many there are, counted up to `most`."""
        ...

    async def is_subscribed(self, user: str, name: MailboxName) -> bool: ...


@runtime_checkable
class TellsRecent(Protocol):
    """A power of a `Mailbox`: to tell what is `\\Recent` without claiming it (EXAMINE). Without it nothing is there."""

    async def recent(self) -> Collection[Uid]:
        """What `claim_recent` would return now; the next session is told the same."""
        ...


@runtime_checkable
class TellsKeywords(Protocol):
    """A power of a `Mailbox`: to tell its keywords without reading its messages (SELECT's FLAGS)."""

    async def keywords(self) -> Collection[str]:
        """As they are spelled here: all that messages have, and perhaps some that messages have had."""
        ...


@runtime_checkable
class TellsModSeq(Protocol):
    """A power of a `MailboxStore`: to tell how far a mailbox's changes have come without opening it (a user's scripts, for
    each message that they filter)."""

    async def modseq_of(self, name: MailboxName) -> tuple[str, ModSeq] | None:
        """Its MAILBOXID and highest mod-sequence, as they are now, whoever has changed it; None where it is not there."""
        ...


@runtime_checkable
class StepsModSeq(Protocol):
    """A power of a `Mailbox`: to count a change of what the store does not keep (its annotations, RFC 7162 §3.2)."""

    async def step_modseq(self) -> None:
        """The mailbox's highest mod-sequence becomes larger; no message changes."""
        ...


@runtime_checkable
class KeepsToldSize(Protocol):
    """A power of a `Mailbox`: RFC822.SIZE of messages with NUL is right before anybody has read them. It keeps
    `NewMessage.told_size` and tells it in `Message`; what other software has put there may have `UNSEEN_SIZE`."""

    async def keep_told_size(self, uid: Uid, size: int) -> None:
        """Somebody has looked: 0, or another size than the message has. A hint."""
        ...

    async def told_octets(self) -> int:
        """How many octets more (or, below 0, fewer) all its messages together have as they are told."""
        ...


@runtime_checkable
class TellsFlags(Protocol):
    """A power of a `Mailbox`: to tell the flags of many messages for less than `messages` costs (FETCH FLAGS)."""

    async def flagged(self, uids: Sequence[Uid]) -> Sequence[Flagged]:
        """As `messages` would tell of these: in UID order, without such as do not exist."""
        ...


# UIDVALIDITY, UIDNEXT, the highest mod-sequence, the lowest UID that is `\\Recent` for the next session; how many messages
# there are, are unseen by this reader (-1: somebody would have to count), are `\\Deleted`; their octets
Numbers = tuple[int, int, int, int, int, int, int, int]


@runtime_checkable
class TellsAtOnce(Protocol):
    """A power of a `Mailbox`: to say without waiting how it stands, also when it has been closed. NOOP, STATUS and FETCH
    FLAGS are answered as they were before, in few steps, where nothing has changed."""

    def numbers(self) -> Numbers | None:
        """As of now, whichever process has changed it. While they are the same, so is all that `status` (but for its size),
        `uids`, `changes` and `flagged` tell. None: there is no such mailbox by this name any more, or who asks has to look
        in the ordinary way; nothing is raised."""
        ...


# A mailbox's id, its numbers, and what tells them later (as `TellsAtOnce.numbers`)
NumbersOf = tuple[str, Numbers, Callable[[], Numbers | None]]


@runtime_checkable
class CountsAtOnce(Protocol):
    """A power of a `MailboxStore` whose mailboxes have `TellsAtOnce`: to say how one stands without opening it, and without
    waiting. STATUS of a mailbox that has not been asked for lately is answered in few steps."""

    def numbers_of(self, name: MailboxName, reader: str) -> NumbersOf | None:
        """As this reader sees it. None: there is no such mailbox, or who asks has to open it. Raises Refusal where it cannot
        be read."""
        ...


@runtime_checkable
class ReplacesMessages(Protocol):
    """A power of a `Mailbox`: a message comes and others go as one change (REPLACE, RFC 8508)."""

    async def replace(
        self, uids: Sequence[Uid], new: NewMessage, target: Mailbox
    ) -> tuple[Uid, Sequence[Uid]] | None:
        """Append to `target`, a mailbox of this store or this one, and expunge these here: durable, and both or neither.
        The new UID, and what has been expunged. None: they lie so that it cannot be one change, and nothing is done. Raises
        as `append`, and Refusal(NONEXISTENT) where none of these messages exists any more."""
        ...


@runtime_checkable
class AppendsOnce(Protocol):
    """A power of a `MailboxStore`: what a script files is there once, although a process dies before the sender hears so. A
    store without it has a note made beside it, before and behind: two flushes more."""

    async def append_once(self, mailbox: Mailbox, message: NewMessage, once: Once) -> Uid | None:
        """As `append` to a mailbox of this store, and in the same change this mark is put down. None: a process that has
        died had put it down; then nothing is added, and the mark is from now on the one of `once.by`. Any other mark of
        this key counts for nothing. Marks are kept for ten minutes, and as long as their process `has_died`."""
        ...


@runtime_checkable
class TellsSummaries(Protocol):
    """A power of a `Mailbox`: `summary` for many messages at once (FETCH ENVELOPE)."""

    async def summaries(self, uids: Sequence[Uid]) -> Mapping[Uid, bytes]:
        """Of those of these messages that have one."""
        ...


@runtime_checkable
class TellsJournals(Protocol):
    """A power of a `MailboxStore`: what its databases have written ahead."""

    def journal_octets(self) -> int:
        """Of all that are open; quick."""
        ...


class Untold(Protocol):
    """Who has still to be told of what is expunged: the workers of a backend, one bit each."""

    def holders(self, mailbox: Mailbox) -> int:
        """The workers in which somebody has this mailbox selected, but for whoever has it open as `mailbox`."""
        ...


@runtime_checkable
class KeepsExpunged(Protocol):
    """A power of a `MailboxStore`: an expunged message stays readable for sessions that have not been told of it (RFC 2180
    §4.1.1). Its mailboxes have `TellsExpunged`."""

    def keep_for(self, untold: Untold) -> None:
        """From now on: what is expunged or moved away is kept for these, as far as the store has room for it, until all
        have let go of it, and no longer than ten minutes. It is in no count and in no list of messages."""
        ...


@runtime_checkable
class TellsExpunged(Protocol):
    """A power of a `Mailbox` of a store that `KeepsExpunged`. `octets`, `summary` and `summaries` tell of what is kept as
    of other messages; nothing else does, and nothing changes it."""

    async def expunged(self, uids: Sequence[Uid]) -> Sequence[Message]:
        """Those of these messages that are kept, as they were, in UID order."""
        ...

    def let_go(self, up_to: ModSeq, holders: int) -> None:
        """These workers have told all who read here of what was expunged up to this mod-sequence. Soon done; need not be
        durable, and costs next to nothing where nothing is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How long expunged messages are kept for their return, and how many of each user (of what is kept together): the
    oldest go first."""

    keep_s: float = 0.0  # 0: none is kept, and what was goes
    most_messages: int = 100_000
    most_octets: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Retained:
    """A message as it was when it was expunged, `at` that moment."""

    message: Message
    at: datetime


@runtime_checkable
class RestoresExpunged(Protocol):
    """A power of a `MailboxStore`: what was expunged (moved away is not) is kept for a while and may come back, also when
    its mailbox has been renamed; it goes with its mailbox. It is in no count. Its mailboxes have `TellsRetained`."""

    def retain(self, retention: Retention) -> None:
        """From now on. Until this is called what was kept before stays as it is."""
        ...

    async def purge(self) -> int:
        """Remove what has been kept for its time, or is too much, in all mailboxes, and with a rest after some; how many
        messages. What else is done to a mailbox may remove it, too."""
        ...


@runtime_checkable
class TellsRetained(Protocol):
    """A power of a `Mailbox` of a store that `RestoresExpunged`."""

    async def retained(self, after: Uid, most: int) -> Sequence[Retained]:
        """The first `most` messages that may come back, with UIDs above `after`, in UID order. Their octets are told as
        others'."""
        ...

    async def restore(self, uids: Sequence[Uid]) -> Mapping[Uid, Uid]:
        """Those of these messages that are kept are messages again: with new UIDs (old UID to new, ascending on both
        sides), flags and dates as they were, without `\\Deleted`. All or none."""
        ...


@runtime_checkable
class KeepsEpoch(Protocol):
    """A power of a `MailboxStore`: to be known as an older copy of itself, put back from a backup."""

    async def epoch(self) -> int:
        """The number that was last set; 0 at first. It is in a copy as it was when that was made. Raises Refusal."""
        ...

    async def set_epoch(self, number: int) -> None:
        """Durable on return. Raises Refusal."""
        ...

    async def renew(self, number: int) -> None:
        """This is an older copy: every mailbox has a UIDVALIDITY that was never told, before it is next looked at. The
        number is set, too; once it is, repeating it changes nothing. Raises Refusal."""
        ...


@runtime_checkable
class NeedsPlace(Protocol):
    """A power of a `MailboxStore`: to know mail that is away, as on a file system that is not mounted, from mail that has
    never been. Used before `start`, which would begin anew where that was mounted."""

    def need_place(self, name: MailboxName) -> None:
        """The server's list has this mailbox. Raises Refusal, with what an operator should look at, where nothing is there
        of all that is kept with it."""
        ...


@runtime_checkable
class ChecksPlace(Protocol):
    """A power of a `MailboxStore`: to say whether mail could be kept now, before anybody has tried (`/readyz`, `status`)."""

    def check_place(self) -> None:
        """Called while the store runs, in a thread of its own, at most each few seconds; may wait for the disk as long as it
        likes, and leaves nothing behind. Raises Refusal, with what an operator should look at, where mail is away or cannot
        be written."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """Of a disk: octets that are left to who is not root, and in all."""

    free: int
    size: int


@runtime_checkable
class TellsRoom(Protocol):
    """A power of a `MailboxStore` whose mail lies on disks: how full they are."""

    def room(self) -> Room:
        """Of the disk that has the smallest part left. Called as `ChecksPlace.check_place` is. Raises OSError."""
        ...


@runtime_checkable
class RenewsMailboxes(Protocol):
    """A power of a `MailboxStore`: to take up what was put back from a backup, of one user or one shared tree."""

    async def renew_below(self, name: MailboxName) -> int:
        """The mailbox and what is below it (the store may take more with them: all that is kept in one place) are older
        copies: each has a UIDVALIDITY and an id that were never told. How many have. Raises Refusal."""
        ...


@runtime_checkable
class CanCheck(Protocol):
    """The power behind `murder ctl store check|repair`."""

    async def check(self, repair: bool) -> Sequence[str]:
        """One sentence for each thing found wrong (and mended, if `repair`)."""
        ...
