"""Where the bundled policies put a new mailbox."""

from murder.api import BackendLoad, NewMailbox
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName
from plugins import placement_emptiest, placement_with_parent

BE1, BE2 = Location("be1", "default"), Location("be2", "default")
PARENT = MailboxEntry(MailboxName(b"user.a"), EntryState.ACTIVE, b"be2!default")
TOP = NewMailbox(MailboxName(b"user.a"), "a", "a", None)
CHILD = NewMailbox(MailboxName(b"user.a.x"), "a", "a", PARENT)
BY_COUNT = placement_emptiest.Settings()
BY_OCTETS = placement_emptiest.Settings(measure="octets")


def test_a_child_goes_to_its_parent() -> None:
    loads = [BackendLoad(BE1, 0), BackendLoad(BE2, 99)]
    assert placement_with_parent.choose_backend(CHILD, loads) == BE2


def test_a_child_goes_beside_its_parent_where_the_partition_is_unknown() -> None:
    elsewhere = Location("be2", "other")
    loads = [BackendLoad(BE1, 0), BackendLoad(elsewhere, 9)]
    assert placement_with_parent.choose_backend(CHILD, loads) == elsewhere


def test_without_a_parent_or_with_one_that_is_away_the_next_decides() -> None:
    loads = [BackendLoad(BE1, 0), BackendLoad(BE2, 9, reachable=False)]
    assert placement_with_parent.choose_backend(TOP, loads) is None
    assert placement_with_parent.choose_backend(CHILD, loads) is None
    assert placement_with_parent.choose_backend(CHILD, loads[:1]) is None


def test_the_emptiest_is_the_one_with_the_fewest_mailboxes_for_its_weight() -> None:
    loads = [BackendLoad(BE1, 10), BackendLoad(BE2, 15, weight=2.0)]
    assert placement_emptiest.choose_backend(BY_COUNT, TOP, loads) == BE2


def test_what_is_away_or_closed_is_not_chosen() -> None:
    loads = [BackendLoad(BE1, 0, reachable=False), BackendLoad(BE2, 0, weight=0)]
    assert placement_emptiest.choose_backend(BY_COUNT, TOP, loads) is None


def test_ties_go_to_the_first_by_name() -> None:
    loads = [BackendLoad(BE2, 1), BackendLoad(BE1, 1)]
    assert placement_emptiest.choose_backend(BY_COUNT, TOP, loads) == BE1


def test_room_on_the_disk_counts_where_all_tell_it() -> None:
    loads = [BackendLoad(BE1, 1, free_octets=10), BackendLoad(BE2, 9, free_octets=99)]
    assert placement_emptiest.choose_backend(BY_OCTETS, TOP, loads) == BE2
    silent = [*loads[:1], BackendLoad(BE2, 9)]
    assert placement_emptiest.choose_backend(BY_OCTETS, TOP, silent) == BE1
