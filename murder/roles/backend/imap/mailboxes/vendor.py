"""What Cyrus tells of a mailbox below `/shared/vendor/cmu/cyrus-imapd/`, as cyradm's `info` and its users expect it.

Read only, and made when it is asked for: by its name, by a name above it from `/shared/vendor` on, or by a wildcard.
`lastpop` alone is noted, by POP3, and told like what has been set.
"""

from collections.abc import Iterable
from typing import Final

from murder.errors import Code, Refusal
from murder.model.annotation import LASTPOP, SITE_SCRIPTS, is_within
from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.roles.backend.imap.dialogue import BackendImap
from murder.wire.imap.date import format_date_time
from murder.wire.imap.mailboxes.metadata import GetMetadataRequest, asked_of

VENDOR: Final = "/shared/vendor"
CYRUS: Final = f"{VENDOR}/cmu/cyrus-imapd/"
MADE: Final = tuple(
    CYRUS + word for word in ("lastupdate", "partition", "server", "size", "uniqueid")
)


def wants_made(request: GetMetadataRequest) -> bool:
    """Whether any of these is asked for: what asks for all below `/shared` by DEPTH gets what has been set."""
    for entry in request.entries:
        asked, depth = asked_of(entry, request.depth)
        is_near = entry != asked or asked.startswith(VENDOR)
        if is_near and any(is_within(name, asked, depth) for name in MADE):
            return True
    return False


async def made_entries(dialogue: BackendImap, name: MailboxName) -> dict[str, bytes]:
    """All of them that this mailbox has, and that are not noted. Raises Refusal."""
    backend = dialogue.backend
    entry = backend.mailboxes.find(name)
    if entry is None:
        raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
    mailbox = await backend.store.open(name, dialogue.user.user)
    try:
        status = await mailbox.status()
        uids = await mailbox.uids() if status.messages else ()
        newest = await mailbox.messages([Uid(uids[-1])]) if uids else ()
    finally:
        mailbox.close()
    made = {
        "partition": entry.location.partition.encode(),
        "server": backend.server_name.encode(),
        "size": b"%d" % status.size,
        "uniqueid": mailbox.mailbox_id.encode(),
    }
    if newest and newest[0].save_date is not None:
        made["lastupdate"] = format_date_time(newest[0].save_date).strip(b'"').strip()
    return {CYRUS + word: value for word, value in made.items()}


def check_not_made(entries: Iterable[str]) -> None:
    """Raises Refusal where SETMETADATA names one of them."""
    for entry in entries:
        if entry in MADE or entry == LASTPOP or f"{entry}/".startswith(f"{SITE_SCRIPTS}/"):
            raise Refusal(Code.CANNOT, f"{entry} cannot be set")
