"""Mailbox referrals (RFC 2193): instead of relaying, tell a client that can follow where the mailbox is. A hook decides."""

from typing import Final

from murder.api.referral import ReferralQuestion
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName, inbox_of
from murder.model.protocol import IMAP
from murder.model.url import ImapUrl, UrlServer
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.patience import Patience
from murder.wire.imap.command import Command
from murder.wire.url import format_url

ANY_MECHANISM: Final = "*"


async def find_or_refer(
    dialogue: FrontendImap,
    name: MailboxName,
    command: Command,
    patience: Patience | None = None,
) -> MailboxEntry:
    """Where the mailbox is that a command names, if it shall be relayed. One that is on its way is waited for. Raises
    Refusal(REFERRAL) if not, Refusal(NONEXISTENT), UpstreamFailure."""
    patience = patience or Patience(dialogue)
    while True:
        try:
            entry = await dialogue.find(name)
            break
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.MOVING or not await patience.pause():
                raise
    login = dialogue.user
    if _refers(dialogue, entry, command.name.decode("ascii"), login):
        url = _url(dialogue, entry, dialogue.external(entry.name), login).decode("ascii")
        raise Refusal(Code.REFERRAL, "The mailbox is on another server", url)
    return entry


def refer_login(dialogue: FrontendImap, login: Login) -> None:
    """A login referral (RFC 2221), where the policy wants one: it is asked for the command LOGIN. Raises
    Refusal(REFERRAL)."""
    entry = dialogue.frontend.locator.known(inbox_of(login.user))
    if entry is not None and _refers(dialogue, entry, "LOGIN", login):
        url = _url(dialogue, entry, None, login).decode("ascii")
        raise Refusal(Code.REFERRAL, "Your mailboxes are on another server", url)


def _refers(dialogue: FrontendImap, entry: MailboxEntry, command: str, login: Login) -> bool:
    question = ReferralQuestion(
        command,
        entry,
        login.user,
        login.is_admin,
        dialogue.referrals_on,
        dialogue.connection.peer,
    )
    return dialogue.frontend.refers(question)


def _url(dialogue: FrontendImap, entry: MailboxEntry, mailbox: bytes | None, login: Login) -> bytes:
    config = dialogue.frontend.whole_config
    port = config.server(entry.server).port(IMAP.keys[0])
    server = UrlServer(
        config.address_of(entry.server),
        None if port == IMAP.keys[0].port else port,
        login.user,
        ANY_MECHANISM,
    )
    return format_url(ImapUrl(server, mailbox))
