"""Placement and referral: plain functions of values that answer what they may, and the same each time."""

from collections.abc import Callable
from typing import Final

from murder.api.contract.check import Check, expect, hold
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName

Place = Callable[..., object]  # choose_backend(mailbox=, candidates=)
Refer = Callable[..., object]  # relay_or_refer(question=)

BE1, BE2 = Location("be1.example.org", "default"), Location("be2.example.org", "default")
PARENT: Final = MailboxEntry(MailboxName(b"user.anna"), EntryState.ACTIVE, bytes(BE2))
INBOX: Final = NewMailbox(MailboxName(b"user.anna"), "anna", "admin", None)
CHILD: Final = NewMailbox(MailboxName(b"user.anna.Sent"), "anna", "anna", PARENT)
SHARED: Final = NewMailbox(MailboxName(b"news.today"), None, "admin", None)
LOADS: Final = [
    BackendLoad(BE1, mailboxes=10, free_octets=10**9),
    BackendLoad(BE2, mailboxes=20, free_octets=None, weight=2.5),
]
COMMANDS: Final = ("SELECT", "EXAMINE", "STATUS", "APPEND", "COPY", "CREATE", "DELETE", "SETACL")


async def answers_a_candidate(place: Place) -> None:
    """A placement is one of the candidates, or None."""
    for mailbox in (INBOX, CHILD, SHARED):
        answer = place(mailbox=mailbox, candidates=list(LOADS))
        offered = [None, *(load.location for load in LOADS)]
        hold(answer in offered, f"for {mailbox.name!r} it answered {answer!r}, of {offered!r}")


async def answers_none_without_candidates(place: Place) -> None:
    """Where no backend takes new mailboxes the answer is None."""
    expect(place(mailbox=CHILD, candidates=[]), None, "with no candidates")


async def spares_the_unreachable(place: Place) -> None:
    """A backend that is not reachable gets no mailbox."""
    away = [BackendLoad(BE1, mailboxes=0, reachable=False)]
    expect(place(mailbox=INBOX, candidates=away), None, "with one candidate, not reachable")


async def places_the_same_each_time(place: Place) -> None:
    """The same question gets the same answer."""
    first = place(mailbox=CHILD, candidates=list(LOADS))
    expect(place(mailbox=CHILD, candidates=list(LOADS)), first, "asked again")


async def answers_a_conduct(refer: Refer) -> None:
    """A referral policy answers a Conduct, or None, to every command."""
    for command in COMMANDS:
        for able in (False, True):
            for is_admin in (False, True):
                question = ReferralQuestion(command, PARENT, "anna", is_admin, able, "192.0.2.1")
                answer = refer(question=question)
                hold(answer is None or isinstance(answer, Conduct), f"{command}: {answer!r}")


PLACEMENT_CHECKS: Final[tuple[Check, ...]] = (
    answers_a_candidate,
    answers_none_without_candidates,
    spares_the_unreachable,
    places_the_same_each_time,
)
REFERRAL_CHECKS: Final[tuple[Check, ...]] = (answers_a_conduct,)
