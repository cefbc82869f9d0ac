"""Annotations of mailboxes and of the server (RFC 5464), and with them special uses (RFC 6154): small values by name.

They stand in the backend's list file as notes, one note a mailbox, so that every worker reads them in microseconds and
a rename or delete carries them in its own commit. Knows no protocol.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NewType

from murder.errors import Code, Refusal
from murder.model.annotation import SPECIAL_USE, is_entry_name
from murder.model.name import MailboxName, inbox_of, owner_of
from murder.model.quota import Resource
from murder.net.turns import in_turns
from murder.roles.backend.records.quota import quota_key
from murder.roles.backend.records.urlauth import url_key
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import Change, PutNote
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction

Scope = NewType("Scope", str)  # the user whose private entries they are; SHARED for everybody's
Values = Mapping[str, bytes]

SHARED: Final = Scope("")
SERVER: Final = MailboxName(b"")
MAX_NOTE_OCTETS: Final = 512 * 1024  # all entries of all users on one mailbox
SPECIAL_USES: Final = {
    use.lower(): use
    for use in (
        "\\All",
        "\\Archive",
        "\\Drafts",
        "\\Flagged",
        "\\Important",
        "\\Junk",
        "\\Sent",
        "\\Trash",
    )
}


def _key(name: MailboxName) -> str:
    return "a/" + name.decode("latin-1")


NOTE_KEYS: Final[tuple[Callable[[MailboxName], str], ...]] = (_key, quota_key, url_key)


def _entry_in(octets: bytes | None, scope: Scope, entry: str) -> bytes | None:
    value = _load(octets).get(scope, {}).get(entry) if octets else None
    return None if value is None else value.encode("latin-1")


def _load(octets: bytes | None) -> dict[str, dict[str, str]]:
    loaded: dict[str, dict[str, str]] = json.loads(octets) if octets else {}
    return loaded


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be noted: of one value; of one user (or of all) on one mailbox; on all of one user's mailboxes."""

    value_octets: int = 64 * 1024  # Cyrus' `annotation_max` is in this order
    entries: int = 200
    octets: int = 256 * 1024
    octets_of_user: int = 16 * 1024 * 1024


class Annotations:
    """See the module. `too_big` and `too_many` make the protocol's own refusals."""

    def __init__(
        self,
        mailbox_list: MailboxList,
        ledger: Ledger,
        too_big: Callable[[int], Refusal],
        too_many: Callable[[], Refusal],
        bounds: Bounds = Bounds(),
    ) -> None:
        self.bounds = bounds
        self._list = mailbox_list
        self._ledger = ledger
        self._too_big = too_big
        self._too_many = too_many

    def of(self, name: MailboxName, scope: Scope) -> dict[str, bytes]:
        """All entries of a scope on a mailbox (or on `SERVER`), by name."""
        entries = _load(self._list.note(_key(name))).get(scope, {})
        return {entry: value.encode("latin-1") for entry, value in entries.items()}

    def value(self, name: MailboxName, scope: Scope, entry: str) -> bytes | None:
        """As `of`, of one entry: for what is asked in each command, where most mailboxes have none."""
        return _entry_in(self._list.note(_key(name)), scope, entry)

    def nearest(self, name: MailboxName, scope: Scope, entry: str) -> bytes | None:
        """As `value`, of the mailbox, or else of the server: by one look into the list."""
        for octets in self._list.notes_of((_key(name), _key(SERVER))):
            value = _entry_in(octets, scope, entry)
            if value is not None:
                return value
        return None

    async def change(
        self, name: MailboxName, changes: Mapping[Scope, Mapping[str, bytes | None]]
    ) -> None:
        """Set entries; None removes one. All or none. Raises Refusal."""
        values = [value for each in changes.values() for value in each.values()]
        bounds = self.bounds
        if any(value is not None and len(value) > bounds.value_octets for value in values):
            raise self._too_big(bounds.value_octets)

        def propose(transaction: ListTransaction) -> None:
            before = transaction.note(_key(name)) or b""
            present = _load(before)
            for scope, entries in changes.items():
                _apply(present, scope, entries)
            octets = json.dumps(present).encode() if present else b""
            if len(octets) > len(before):  # what makes it smaller is always let through
                is_full = any(self._is_full(present.get(scope, {})) for scope in changes)
                if is_full or len(octets) > MAX_NOTE_OCTETS:
                    raise self._too_many()
            transaction.apply(PutNote(_key(name), octets))

        await self._ledger.submit(propose)

    def _is_full(self, entries: Mapping[str, str]) -> bool:
        octets = sum(len(entry) + len(value) for entry, value in entries.items())
        return len(entries) > self.bounds.entries or octets > self.bounds.octets

    async def check_room(self, name: MailboxName, more: int) -> None:
        """Raises the refusal of too many where so many octets more would be too much for the user whose mailbox it is."""
        owner = owner_of(name)
        if owner is None:
            return
        root, octets = inbox_of(owner), more
        octets += len(self._list.note(_key(root)) or b"")
        async for head in in_turns(self._list.heads_below(root)):
            octets += len(self._list.note(_key(head.name)) or b"")
            if octets > self.bounds.octets_of_user:
                raise self._too_many()

    def special_uses(self, name: MailboxName, user: str) -> tuple[str, ...]:
        """What the mailbox is to this user, as LIST attributes."""
        value = self.value(name, Scope(user), SPECIAL_USE)
        if not value:  # mostly
            return ()
        words = value.decode("ascii", "replace").split()
        return tuple(word for word in words if word.lower() in SPECIAL_USES)


def _apply(
    present: dict[str, dict[str, str]], scope: Scope, entries: Mapping[str, bytes | None]
) -> None:
    kept = present.setdefault(scope, {})
    for entry, value in entries.items():
        if value is None:
            kept.pop(entry, None)
        else:
            kept[entry] = value.decode("latin-1")
    if not kept:
        del present[scope]


def moved_with(
    mailbox_list: MailboxList,
    moves: Iterable[tuple[MailboxName, MailboxName]],
    owners: tuple[str, str] | None = None,
) -> list[Change]:
    """The steps that carry annotations (and quota limits, and keys of URLs) along with a rename; where a user is renamed,
    from their old name to the new one, their own annotations are theirs under it."""
    steps: list[Change] = []
    for old, new in moves:
        for key in NOTE_KEYS:
            octets = mailbox_list.note(key(old))
            if octets and owners is not None and key is _key:
                octets = _of_renamed_user(octets, *owners)
            if octets:
                steps += [PutNote(key(new), octets), PutNote(key(old), b"")]
    return steps


def _of_renamed_user(note: bytes, old: str, new: str) -> bytes:
    scopes = _load(note)
    if old in scopes:
        scopes[new] = scopes.pop(old) | scopes.get(new, {})
    return json.dumps(scopes).encode()


def removed_with(mailbox_list: MailboxList, names: Iterable[MailboxName]) -> list[Change]:
    """The steps that remove annotations (and quota limits, and keys of URLs) with their mailboxes."""
    return [PutNote(key, b"") for key in notes_with(mailbox_list, names)]


def notes_with(mailbox_list: MailboxList, names: Iterable[MailboxName]) -> dict[str, bytes]:
    """All that stands beside these mailboxes' rows, by key: it goes where they go."""
    keys = [key(name) for name in names for key in NOTE_KEYS]
    return {key: octets for key in keys if (octets := mailbox_list.note(key))}


def note_keys_of(names: Iterable[MailboxName]) -> frozenset[str]:
    """All keys that notes of these mailboxes may have."""
    return frozenset(key_of(name) for name in names for key_of in NOTE_KEYS)


def check_note(key: str, octets: bytes) -> None:
    """Whether a note of another server's is one: what is kept here is read by everybody later. Raises Refusal."""
    try:
        _check_note(key, octets)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refusal(Code.CANNOT, f"the note {key[:60]!r} cannot be read: {error}") from None


def _check_note(key: str, octets: bytes) -> None:
    if len(octets) > MAX_NOTE_OCTETS:
        raise ValueError(f"it has {len(octets)} octets, it may have {MAX_NOTE_OCTETS}")
    scopes = json.loads(octets)
    for word, value in scopes.items():
        match key[:2]:
            case "a/":
                bad = [entry for entry in value if not is_entry_name(entry)]
                if bad:
                    raise ValueError(f"{bad[0]!r} is no entry's name")
                for text in value.values():
                    text.encode("latin-1")
            case "q/":
                if Resource(word) is None or not 0 <= int(value) < 2**63:
                    raise ValueError(f"{value!r} is no limit")
            case _:
                bytes.fromhex(value)


def note_with(name: MailboxName, notes: Mapping[str, Mapping[str, bytes]]) -> tuple[str, bytes]:
    """The note, by its key, of a mailbox that has these entries by scope; empty where it has none."""
    fields = {
        scope: {entry: value.decode("latin-1") for entry, value in entries.items()}
        for scope, entries in notes.items()
        if entries
    }
    return _key(name), json.dumps(fields).encode() if fields else b""


def without_entry(note: bytes, entry: str) -> bytes:
    """A mailbox's note without one shared entry; empty where there is no other."""
    present = _load(note)
    _apply(present, SHARED, {entry: None})
    return json.dumps(present).encode() if present else b""


def note_of(name: MailboxName, user: str, special_use: str) -> Change:
    """The step that gives a new mailbox its special use (RFC 6154 §3)."""
    scopes = {user: {SPECIAL_USE: special_use}}
    return PutNote(_key(name), json.dumps(scopes).encode())
