"""What was expunged and is kept at its backend: shown to an operator, and brought back."""

from murder.admin.operate.reach import Reach, data_of
from murder.errors import Code, Refusal
from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.wire.imap.mail.copy import parse_copyuid
from murder.wire.imap.mail.unexpunge import (
    CAPABILITY,
    WORD,
    Expunged,
    UnexpungeRequest,
    format_unexpunge,
    parse_expunged,
)

MOST_UIDS = 2**22  # in one answer: far more than a backend keeps of a user


async def kept(reach: Reach, name: MailboxName, uids: str, within_s: int) -> list[Expunged]:
    """Of these UIDs, expunged in the last so many seconds (0: whenever). Raises Refusal, UpstreamFailure, BadSyntax."""
    server = await _server_of(reach, name)
    command = format_unexpunge(
        UnexpungeRequest(reach.external(name), restores=False, within_s=within_s), uids
    )
    reply = await reach.execute(server, command)
    return [parse_expunged(octets) for octets in data_of(reply, WORD)]


async def bring_back(
    reach: Reach, name: MailboxName, uids: str, within_s: int
) -> list[tuple[Uid, Uid]]:
    """The UIDs that they had, each with the one that it has now. Raises likewise."""
    server = await _server_of(reach, name)
    command = format_unexpunge(
        UnexpungeRequest(reach.external(name), restores=True, within_s=within_s), uids
    )
    code = (await reach.execute(server, command)).code
    if not code:
        return []
    done = parse_copyuid(code, MOST_UIDS)
    return list(zip(done.sources, done.targets, strict=True))


async def _server_of(reach: Reach, name: MailboxName) -> str:
    server = (await reach.find(name)).server
    if CAPABILITY not in (await reach.backend(server)).capabilities:
        raise Refusal(Code.CANNOT, f"{server} keeps no expunged messages (an older version)")
    return server
