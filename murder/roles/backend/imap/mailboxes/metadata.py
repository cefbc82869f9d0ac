"""GETMETADATA and SETMETADATA (RFC 5464), special uses among them (RFC 6154 §4)."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from murder.api.store import StepsModSeq
from murder.errors import Code, Refusal
from murder.model.annotation import PRIVATE, SPECIAL_USE, Depth, is_within
from murder.model.name import MailboxName, owner_of
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.site_entries import site_entries, wants_site
from murder.roles.backend.imap.mailboxes.vendor import check_not_made, made_entries, wants_made
from murder.roles.backend.records.annotations import SERVER, SHARED, SPECIAL_USES, Scope
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.metadata import (
    GetMetadataRequest,
    SetMetadataRequest,
    asked_of,
    format_long_entries,
    format_metadata,
    parse_getmetadata,
    parse_setmetadata,
)
from murder.wire.token import Scanner

SETTING_RIGHTS: Final = "w"  # for shared entries, with `l` (RFC 5464 §3.3)


def run_getmetadata(dialogue: BackendImap, command: Command) -> Running:
    """GETMETADATA (RFC 5464 §4.2). The site's entries are told to administrators only."""
    request = parse_getmetadata(Scanner(command.octets, command.start))
    name = _readable(dialogue, request.mailbox)
    if name != SERVER and wants_made(request):
        return _get_with_made(dialogue, command, request, name)
    present = entries_of(dialogue, name)
    if name == SERVER and dialogue.user.is_admin and wants_site(request):
        present |= site_entries(dialogue.backend.site, request)
    return _tell(dialogue, command, request, present)


async def _get_with_made(
    dialogue: BackendImap, command: Command, request: GetMetadataRequest, name: MailboxName
) -> None:
    made = await made_entries(dialogue, name)
    telling = _tell(dialogue, command, request, entries_of(dialogue, name) | made)
    if telling is not None:
        await telling


def _tell(
    dialogue: BackendImap,
    command: Command,
    request: GetMetadataRequest,
    present: Mapping[str, bytes],
) -> Running:
    chosen, longest = _chosen(present, request)
    if chosen:
        dialogue.send(format_metadata(request.mailbox, chosen))
    code = format_long_entries(longest) if longest else b""
    return dialogue.conclude(command, code=code)


def _readable(dialogue: BackendImap, external: bytes) -> MailboxName:
    """The mailbox, if its entries may be read; b"" is the server. Raises Refusal."""
    if not external:
        return SERVER
    name = dialogue.name_of(external)
    accessible = dialogue.backend.mailboxes.require(name, dialogue.user, "l")
    if not accessible.rights & frozenset("rwika"):
        raise Refusal(Code.NO_PERMISSION, "You may not read annotations of this mailbox")
    return name


def entries_of(dialogue: BackendImap, name: MailboxName) -> dict[str, bytes]:
    """All entries that the user sees on a mailbox: the shared ones and their own."""
    annotations = dialogue.backend.annotations
    return annotations.of(name, SHARED) | annotations.of(name, Scope(dialogue.user.user))


def _chosen(
    present: Mapping[str, bytes], request: GetMetadataRequest
) -> tuple[dict[str, bytes | None], int]:
    """What is told, and the size of the largest value that MAXSIZE left out (0: none)."""
    chosen: dict[str, bytes | None] = {}
    longest = 0
    ordered = sorted(present)
    for name in request.entries:
        asked, depth = asked_of(name, request.depth)
        near = [asked] if asked in present and asked == name else []
        if depth is not Depth.ZERO:
            below = asked + "/"
            first, last = bisect_left(ordered, below), bisect_left(ordered, asked + "0")  # "/" + 1
            near += [
                entry_name
                for entry_name in ordered[first:last]
                if is_within(entry_name, asked, depth)
            ]
        for entry in near:
            value = present[entry]
            if request.max_size is not None and len(value) > request.max_size:
                longest = max(longest, len(value))
            else:
                chosen[entry] = value
        if asked not in present and depth is Depth.ZERO:
            chosen.setdefault(asked, None)
    return chosen, longest


def run_setmetadata(dialogue: BackendImap, command: Command) -> Running:
    """SETMETADATA (RFC 5464 §4.3), of a mailbox or of the server."""
    return _set(dialogue, command, parse_setmetadata(Scanner(command.octets, command.start)))


async def _set(dialogue: BackendImap, command: Command, request: SetMetadataRequest) -> None:
    user = Scope(dialogue.user.user)
    changes: dict[Scope, dict[str, bytes | None]] = {}
    for entry, value in request.values.items():
        scope = user if entry.startswith(PRIVATE) else SHARED
        changes.setdefault(scope, {})[entry] = value
    name = _writable(dialogue, request.mailbox, shared=SHARED in changes)
    check_not_made(request.values)
    use = request.values.get(SPECIAL_USE)
    if use is not None:
        checked = _checked_use(dialogue, name, use)
        if dialogue.user.is_admin and (owner := owner_of(name)) is not None:
            del changes[user][SPECIAL_USE]  # what an administrator sets is the owner's
            user = Scope(owner)
        changes.setdefault(user, {})[SPECIAL_USE] = checked
    more = sum(len(value or b"") for entries in changes.values() for value in entries.values())
    if more and not dialogue.user.is_admin:
        await dialogue.backend.annotations.check_room(name, more)
    await dialogue.backend.annotations.change(name, changes)
    await _count_change(dialogue, name)
    with dialogue.causing((Kind.ANNOTATED, name)):
        for scope, entries in changes.items():
            dialogue.backend.events.publish(
                News(Kind.ANNOTATED, name, user=scope, entries=tuple(entries))
            )
    await dialogue.finish(command)


async def _count_change(dialogue: BackendImap, name: MailboxName) -> None:
    """RFC 7162 §3.2: an annotation's change counts among the mailbox's."""
    if name == SERVER:
        return
    mailbox = await dialogue.backend.store.open(name, dialogue.user.user)
    try:
        if isinstance(mailbox, StepsModSeq):
            await mailbox.step_modseq()
    finally:
        mailbox.close()


def _writable(dialogue: BackendImap, external: bytes, *, shared: bool) -> MailboxName:
    mailboxes, login = dialogue.backend.mailboxes, dialogue.user
    if not external:
        if shared and not login.is_admin:
            raise Refusal(Code.NO_PERMISSION, "Only an administrator annotates the server")
        return SERVER
    name = dialogue.name_of(external)
    if shared and not login.is_admin:
        mailboxes.require(name, login, "l" + SETTING_RIGHTS)
    else:
        _readable(dialogue, external)
    return name


def _checked_use(dialogue: BackendImap, name: MailboxName, value: bytes) -> bytes:
    """Special uses in their one spelling; raises Refusal for others."""
    words = value.decode("ascii", "replace").split()
    known = [SPECIAL_USES[word.lower()] for word in words if word.lower() in SPECIAL_USES]
    is_owner = owner_of(name) == dialogue.user.user
    is_for_owner = dialogue.user.is_admin and owner_of(name) is not None
    if len(known) != len(words) or not (is_owner or is_for_owner):
        raise Refusal(Code.CANNOT, "This special use cannot be set for this mailbox")
    return " ".join(known).encode()
