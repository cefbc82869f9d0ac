"""What workers tell each other beside "this mailbox has changed": names, rights, subscriptions, annotations.

Sessions that asked for it (RFC 5465) tell their clients. One piece of news is one line of text, because it travels over
the bus between the workers.
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Final

from murder.model.name import MailboxName

NO_NAME: Final = MailboxName(b"")
EVERYTHING: Final = "*"  # so much has happened that nobody says what


class Kind(Enum):
    """What has happened to a mailbox."""

    CREATED = "created"
    ARRIVED = "arrived"  # from another server
    LEFT = "left"  # for another server
    DELETED = "deleted"
    RENAMED = "renamed"  # `other` is the old name
    RENAMED_BELOW = "renamed-below"  # along with one above it
    ACL = "acl"
    ANNOTATED = "annotated"  # `entries` of `user` ("" for everybody's); the name b"" is the server
    SUBSCRIBED = "subscribed"  # by `user`, or no longer


@dataclass(frozen=True, slots=True)
class News:
    """One event. `name` and `other` are canonical names."""

    kind: Kind
    name: MailboxName
    other: MailboxName = NO_NAME
    user: str = ""
    entries: tuple[str, ...] = ()


def format_news(news: News) -> str:
    """One line; begins with a brace, as no mailbox id does."""
    fields: dict[str, object] = {"kind": news.kind.value, "name": news.name.decode("latin-1")}
    if news.other:
        fields["other"] = news.other.decode("latin-1")
    if news.user:
        fields["user"] = news.user
    if news.entries:
        fields["entries"] = news.entries
    return json.dumps(fields)


def parse_news(text: str) -> News | None:
    """The reverse; None for what is no news, or news of another version of this server."""
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
        return News(
            Kind(fields["kind"]),
            MailboxName(fields["name"].encode("latin-1")),
            MailboxName(fields.get("other", "").encode("latin-1")),
            fields.get("user", ""),
            tuple(fields.get("entries", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
