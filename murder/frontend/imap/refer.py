"""Mailbox referrals (RFC 2193): instead of relaying, tell a client that can follow where the mailbox is. A hook decides."""

from typing import Final

from murder.api.referral import Conduct, ReferralQuestion
from murder.errors import Code, Refusal
from murder.frontend.imap.dialogue import FrontendImap
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName
from murder.model.url import ImapUrl, UrlServer
from murder.wire.imap.command import Command
from murder.wire.url import format_url

IMAP_PORT: Final = 143
ANY_MECHANISM: Final = "*"


async def find_or_refer(
    dialogue: FrontendImap, name: MailboxName, command: Command
) -> MailboxEntry:
    """Where the mailbox is that a command names, if it shall be relayed. Raises Refusal(REFERRAL) if not,
    Refusal(NONEXISTENT), UpstreamFailure."""
    entry = await dialogue.find(name)
    login = dialogue.user
    question = ReferralQuestion(
        command.name.decode("ascii"),
        entry,
        login.user,
        login.is_admin,
        dialogue.referrals_on,
        dialogue.connection.peer,
    )
    if dialogue.frontend.plugins.relay_or_refer(question) is Conduct.REFER:
        url = _url(dialogue, entry).decode("ascii")
        raise Refusal(Code.REFERRAL, "The mailbox is on another server", url)
    return entry


def _url(dialogue: FrontendImap, entry: MailboxEntry) -> bytes:
    config = dialogue.frontend.whole_config
    port = config.server(entry.server).imap
    server = UrlServer(
        config.address_of(entry.server),
        None if port == IMAP_PORT else port,
        dialogue.user.user,
        ANY_MECHANISM,
    )
    return format_url(ImapUrl(server, dialogue.external(entry.name)))
