"""What expires by its age at the backends: shown to an operator, or done now."""

from murder.admin.operate.reach import Reach, data_of
from murder.errors import Code, Refusal
from murder.wire.imap.mailboxes.expire import (
    CAPABILITY,
    WORD,
    ExpiredTold,
    format_expire,
    parse_expired,
)


async def expire(reach: Reach, server: str, *, acts: bool) -> list[ExpiredTold]:
    """By the rules that this backend has. Raises Refusal, UpstreamFailure, BadSyntax."""
    if CAPABILITY not in (await reach.backend(server)).capabilities:
        raise Refusal(Code.CANNOT, f"{server} has no rules of age (an older version, or a Cyrus)")
    reply = await reach.execute(server, format_expire(acts), untagged=None)
    return [parse_expired(octets) for octets in data_of(reply, WORD)]
