"""What a site adds to its users' filters, as a backend has it in force, or as a murder.toml says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from murder.admin.operate.annotations import values_in
from murder.admin.operate.reach import Reach, data_of
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.model.annotation import SHARED_SCRIPT, SITE_SCRIPTS, site_script_entry
from murder.model.name import MailboxName
from murder.sieve import Policy, Scale
from murder.wire.token import string


@dataclass(frozen=True, slots=True)
class SiteScripts:
    """Name (its path) and octets of those that run before and behind each user's own, in order. `policy`: where scores
    are."""

    before: Sequence[tuple[str, bytes]] = ()
    after: Sequence[tuple[str, bytes]] = ()
    policy: Policy | None = None


async def site_scripts_at(reach: Reach, server: str) -> SiteScripts | None:
    """None where a backend does not tell: a Cyrus, or one from before this. Raises UpstreamFailure."""
    names = [f"{SITE_SCRIPTS}/{word}" for word in ("scores", "before", "after")]
    command = f'GETMETADATA (DEPTH infinity) "" ({" ".join(names)})'
    try:
        reply = await reach.execute(server, command.encode("ascii"))
    except Refusal:
        return None
    values = values_in(data_of(reply, b"METADATA"))
    scores = values.get(f"{SITE_SCRIPTS}/scores")
    if scores is None:
        return None
    try:
        policy = _policy_in(json.loads(scores))
    except (ValueError, TypeError, AttributeError) as error:
        raise UpstreamFailure(
            UpstreamKind.PROTOCOL, server, "it reports its counts in the format of another version"
        ) from error
    return SiteScripts(_scripts_in(values, "before"), _scripts_in(values, "after"), policy)


async def site_script_at(reach: Reach, server: str, name: str) -> bytes | None:
    """One of the site's folder, by its name. Raises UpstreamFailure."""
    entry = site_script_entry(name)
    try:
        reply = await reach.execute(server, b'GETMETADATA "" ' + entry.encode("ascii"))
    except Refusal:
        return None
    return values_in(data_of(reply, b"METADATA")).get(entry)


async def shared_script_at(reach: Reach, server: str, mailbox: MailboxName) -> str:
    """Which of the site's runs for mail to a shared mailbox, "" for none. Raises UpstreamFailure."""
    command = b"GETMETADATA %b %b" % (string(reach.external(mailbox)), SHARED_SCRIPT.encode())
    try:
        reply = await reach.execute(server, command)
    except Refusal:
        return ""
    value = values_in(data_of(reply, b"METADATA")).get(SHARED_SCRIPT, b"")
    return value.decode("utf-8", "replace")


def _scripts_in(values: Mapping[str, bytes], order: str) -> list[tuple[str, bytes]]:
    head = f"{SITE_SCRIPTS}/{order}/"
    numbers = sorted({entry.removeprefix(head)[:4] for entry in values if entry.startswith(head)})
    return [
        (
            values.get(f"{head}{number}/name", b"").decode("utf-8", "surrogateescape"),
            values.get(f"{head}{number}/script", b""),
        )
        for number in numbers
    ]


def _policy_in(scores: Mapping[str, Mapping[str, Any]]) -> Policy:
    """Raises TypeError, ValueError, AttributeError for what is none."""
    spam, virus = (
        Scale(**{**facts, "texts": {int(key): text for key, text in facts["texts"].items()}})
        for facts in (scores["spam"], scores["virus"])
    )
    return Policy(spam=spam, virus=virus)
