"""Who a recipient's address means, and the folder behind its `+`: LMTP at either role, and who asks where mail goes."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from murder.errors import Refusal
from murder.model.name import MailboxName, Namespace, inbox_of
from murder.wire import mutf7
from murder.wire.lmtp import Recipient


@dataclass(frozen=True, slots=True)
class Candidate:
    """A user whom an address may mean, "" for nobody's mailbox (`+folder@…`); and the mailbox that the part behind `+`
    names, if it can name one."""

    user: str
    folder: MailboxName | None

    @property
    def inbox(self) -> MailboxName | None:
        """The user's."""
        return inbox_of(self.user) if self.user else None


def candidates_of(
    recipient: Recipient, namespace: Namespace, *, domains: bool
) -> Sequence[Candidate]:
    """The best first: the user as written, then in lower case; one at least. Without `[namespace] domains` the domain says
    nothing."""
    local = str(recipient.local, "utf-8", "surrogateescape")
    tail = "@" + str(recipient.domain, "ascii", "replace") if domains and recipient.domain else ""
    users = dict.fromkeys((local + tail, local.lower() + tail)) if local else ("",)
    return [Candidate(user, _folder_of(recipient, user, tail, namespace)) for user in users]


def _folder_of(
    recipient: Recipient, user: str, tail: str, namespace: Namespace
) -> MailboxName | None:
    """`tail` is the domain of a shared one, with its @."""
    if not recipient.detail:
        return None
    try:
        text = unicodedata.normalize("NFC", str(recipient.detail, "utf-8"))
        prefix = namespace.personal_prefix if user else namespace.shared_prefix
        written = prefix + mutf7.encode(text) + (b"" if user else tail.encode("ascii", "replace"))
        name = namespace.internal(written, user)
    except (Refusal, UnicodeDecodeError):
        return None
    return None if user and not name.startswith(inbox_of(user)) else name
