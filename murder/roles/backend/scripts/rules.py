"""Which scripts see what clients do by IMAP (imapsieve, RFC 6785): told in no time, for each command."""

from typing import Final

from murder.errors import Code, Refusal
from murder.model.name import MailboxName, is_deleted, is_non_imap
from murder.roles.backend.records.annotations import SHARED
from murder.roles.backend.records.caused import Caused
from murder.roles.backend.scripts.run import Chosen
from murder.roles.backend.scripts.site import ImapRule, SiteScript
from murder.roles.backend.shared import Backend

# RFC 6785 §2.3: the script's name, of the server or of a mailbox; there an empty one means none
SCRIPT_ENTRY: Final = "/shared/imapsieve/script"


def may_see(
    backend: Backend, user: str, name: MailboxName, cause: str, origin: MailboxName | None = None
) -> bool:
    """Whether there is a script for it."""
    if is_non_imap(name) or is_deleted(name):
        return False
    return bool(named_script(backend, name) or site_scripts(backend, user, name, cause, origin))


def site_scripts(
    backend: Backend, user: str, name: MailboxName, cause: str, origin: MailboxName | None
) -> list[SiteScript]:
    """By the rules of `[sieve.imap]`, in order."""
    return [
        rule.script
        for rule in backend.site.imap
        if cause in rule.asks.causes
        and rule.mailbox.fullmatch(backend.namespace.external(name, user))
        and _is_from(rule, backend, user, origin)
        and _has_use(rule, backend, user, name)
    ]


def _is_from(rule: ImapRule, backend: Backend, user: str, origin: MailboxName | None) -> bool:
    if rule.asks.from_mailbox == "*":
        return True
    if origin is None:
        return False
    return rule.origin.fullmatch(backend.namespace.external(origin, user)) is not None


def _has_use(rule: ImapRule, backend: Backend, user: str, name: MailboxName) -> bool:
    wanted = rule.asks.special_use.lower()
    if not wanted:
        return True
    return wanted in map(str.lower, backend.annotations.special_uses(name, user))


async def scripts_for_cause(backend: Backend, row: Caused) -> list[Chosen]:
    """The site's, then the one of the user's own. Raises Refusal."""
    user = row.user
    of_site = site_scripts(backend, user, row.mailbox, row.cause, row.origin)
    chosen = [Chosen(script.name, script.octets) for script in of_site]
    if row.script:
        try:
            chosen.append(Chosen(row.script, await backend.scripts.read(user, row.script), user))
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
    return chosen


def named_script(backend: Backend, name: MailboxName) -> str:
    """The user's script that an annotation of the mailbox, or else of the server, names; "" for none."""
    value = backend.annotations.nearest(name, SHARED, SCRIPT_ENTRY)
    return value.decode("utf-8", "replace") if value else ""
