"""XEXPIRE: what the rules of age would do, or do now, for an operator (wire.imap.expire)."""

from murder.roles.backend.hierarchy.policies import today, told
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.xfer import need_admin
from murder.roles.backend.traced import Unattended
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.expire import WORD, ExpiredTold, format_expired, parse_expire
from murder.wire.token import Scanner


def run_expire(dialogue: BackendImap, command: Command) -> Running:
    """EXPIRE, for administrators: what the rules of this backend would remove, or have removed."""
    acts = parse_expire(Scanner(command.octets, command.start))
    need_admin(dialogue, "sees what expires")
    return _expire(dialogue, command, acts)


async def _expire(dialogue: BackendImap, command: Command, acts: bool) -> None:
    backend = dialogue.backend
    if acts:
        dialogue.note_act(WORD.decode(), "RUN", "begun")
    by = Unattended(dialogue.service.mail_log, dialogue.log_facts())
    async for expired in backend.policies.apply(today(), acts=acts, by=by):
        if acts and expired.messages:
            dialogue.log.info("expiry.applied", **told(expired))
            dialogue.note_act("EXPIRE", "", "done", told(expired, dialogue.backend.shown))
        names = [
            b"" if name is None else backend.namespace.external(name, "")
            for name in (expired.name, expired.target)
        ]
        counts = expired.messages, expired.octets
        dialogue.send(
            format_expired(ExpiredTold(expired.rule, names[0], *counts, names[1], expired.problem))
        )
        await dialogue.flush()
    await dialogue.finish(command)
