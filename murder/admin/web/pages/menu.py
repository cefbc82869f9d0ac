"""Every page, and what the menu shows."""

from collections.abc import Sequence
from typing import Final

from murder.admin.web.desk import Page
from murder.admin.web.pages import disputes, mailboxes, moving, people, reading, status, trails

MENU: Final[Sequence[tuple[str, str]]] = (
    ("/status", "Status"),
    ("/sessions", "Sessions"),
    ("/users", "Users"),
    ("/mailboxes", "Mailboxes"),
    ("/moves", "Moves"),
    ("/conflicts", "Conflicts"),
    ("/messages", "Messages"),
    ("/audit", "Audit"),
    ("/log", "Log"),
    ("/manual", "Manual"),
)
PAGES: Final[Sequence[Page]] = (
    *status.PAGES,
    *people.PAGES,
    *mailboxes.PAGES,
    *moving.PAGES,
    *disputes.PAGES,
    *trails.PAGES,
    *reading.PAGES,
)
