"""Placement: a new mailbox goes where its parent is.

A user's folders so stay beside their INBOX, and one RENAME or move carries them all. Where the parent's backend is
down or takes no new mailboxes, and for a mailbox without a parent, the next plugin decides.
"""

from collections.abc import Sequence

from murder.api import BackendLoad, NewMailbox, hookimpl
from murder.model.entry import Location


@hookimpl
def choose_backend(mailbox: NewMailbox, candidates: Sequence[BackendLoad]) -> Location | None:
    """The parent's backend, if it is among those that take new mailboxes."""
    if mailbox.parent is None:
        return None
    home = mailbox.parent.location
    exact = (load.location for load in candidates if load.location == home and load.reachable)
    nearby = (
        load.location
        for load in candidates
        if load.location.server == home.server and load.reachable
    )
    return next(exact, None) or next(nearby, None)
