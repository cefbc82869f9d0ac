"""What a client has done is put down for the scripts that see it (imapsieve), before the client hears OK."""

from collections.abc import Mapping, Sequence

from murder.errors import Refusal
from murder.model.message import Message, Uid
from murder.model.name import MailboxName, display
from murder.roles.backend.changes.events import ScriptsQueued
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.records.caused import CHUNK, Caused
from murder.roles.backend.scripts.elsewhere import BY_SCRIPT
from murder.roles.backend.scripts.rules import may_see, named_script


def is_seen(
    dialogue: BackendImap, name: MailboxName, cause: str, origin: MailboxName | None = None
) -> bool:
    """Whether scripts see it; those of another backend's delivery are not seen."""
    login = dialogue.user
    if login.is_admin or (login.by_proxy and BY_SCRIPT in dialogue.client_id):
        return False
    return may_see(dialogue.backend, login.user, name, cause, origin)


def flags_are_seen(dialogue: BackendImap, name: MailboxName) -> bool:
    """As `is_seen`, of flags in the selected mailbox, whose rights have just been looked at: found out once for each state
    of the mailbox list, which has the annotations."""
    asked = dialogue.looked_at, name, dialogue.login, dialogue.client_id, dialogue.backend.site
    if asked != dialogue.asked_of_flags:
        dialogue.flags_are_seen = is_seen(dialogue, name, "FLAG")
        dialogue.asked_of_flags = asked
    return dialogue.flags_are_seen


async def note(
    dialogue: BackendImap,
    name: MailboxName,
    mailbox_id: str,
    uids: Sequence[Uid],
    cause: str,
    origin: MailboxName | None = None,
) -> None:
    """If scripts see it."""
    if not uids or not is_seen(dialogue, name, cause, origin):
        return
    user, script = dialogue.user.user, named_script(dialogue.backend, name)
    await _put(
        dialogue,
        [
            Caused(
                *(user, name, mailbox_id, uids[start : start + CHUNK], cause, origin),
                script=script,
            )
            for start in range(0, len(uids), CHUNK)
        ],
    )


async def note_flags(
    dialogue: BackendImap,
    name: MailboxName,
    mailbox_id: str,
    before: Mapping[Uid, frozenset[str]],
    after: Sequence[Message],
) -> None:
    """Messages whose flags have changed, by what has changed."""
    changed: dict[tuple[str, ...], list[Uid]] = {}
    for message in after:
        flags = tuple(sorted(message.flags ^ before.get(message.uid, message.flags)))
        if flags:
            changed.setdefault(flags, []).append(message.uid)
    user, script = dialogue.user.user, named_script(dialogue.backend, name)
    if changed:
        await _put(
            dialogue,
            [
                Caused(
                    *(user, name, mailbox_id, uids[start : start + CHUNK], "FLAG", None, flags),
                    script,
                )
                for flags, uids in changed.items()
                for start in range(0, len(uids), CHUNK)
            ],
        )


async def _put(dialogue: BackendImap, rows: Sequence[Caused]) -> None:
    """The mail is stored: that scripts do not see it is no reason to say NO."""
    try:
        count = await dialogue.backend.deliveries.put_caused(rows)
        problem = "too much waits for scripts already" if count < len(rows) else ""
    except (Refusal, OSError) as error:
        problem = str(error)
    if problem:
        dialogue.log.warning("script.not_run", mailbox=display(rows[0].mailbox), problem=problem)
    dialogue.backend.events.publish(ScriptsQueued())
