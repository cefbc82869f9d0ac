"""Who comes first at the next commit: peers in turn, small before large in turn, each caller in their own order."""

from hypothesis import given
from hypothesis import strategies as st

from murder.roles.mupdate.commits.waiting import (
    MAX_COMMIT_COST,
    MAX_COMMIT_WORKS,
    SMALL_COST,
    Batch,
    Waiting,
    cost_of,
)

LARGE = MAX_COMMIT_COST


def batch(
    label: str, cost: int = 4, peer: str = "", caller: object = None, works: int = 1
) -> Batch[str]:
    return Batch([label] * works, lambda _: None, cost, peer, caller)


def labels(waiting: Waiting[str]) -> list[str]:
    return [one.works[0] for one in waiting.take()]


def test_the_cost_of_a_row_grows_with_its_identifiers() -> None:
    assert cost_of(b"") == cost_of(b"x" * 1000) == 4
    assert cost_of(b"a\tl\tb\tl\t") == 6 and cost_of(b"a\tl\tb\tl") == 5


def test_a_peer_with_many_connections_waits_for_one_with_few() -> None:
    """A stolen key that fills the queue: others' next words are in the next commit."""
    waiting: Waiting[str] = Waiting()
    for number in range(1000):
        waiting.add(batch(f"thief{number}", LARGE, "be1", number))
    waiting.add(batch("other", peer="be2"))
    assert labels(waiting) == ["thief0"]
    assert labels(waiting) == ["other"]
    assert labels(waiting) == ["thief1"]
    assert waiting.count == 998


def test_with_the_same_key_what_is_small_waits_for_one_that_is_large() -> None:
    waiting: Waiting[str] = Waiting()
    for number in range(1000):
        waiting.add(batch(f"thief{number}", LARGE, "be1", number))
    assert labels(waiting) == ["thief0"]
    waiting.add(batch("create", peer="be1", caller="honest"))
    assert labels(waiting) == ["create"]
    for number in range(3):
        waiting.add(batch(f"create{number}", SMALL_COST, "be1", f"honest{number}"))
    assert labels(waiting) == ["thief1"] and labels(waiting) == ["create0"]
    assert labels(waiting) == ["thief2"] and labels(waiting) == ["create1"]


def test_a_commit_has_a_bound_of_works_too() -> None:
    waiting: Waiting[str] = Waiting()
    for number in range(4):
        waiting.add(batch(str(number), works=MAX_COMMIT_WORKS // 2, caller=number))
    assert labels(waiting) == ["0", "1"] and labels(waiting) == ["2", "3"] and labels(waiting) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"),
            st.integers(0, 3),
            st.sampled_from([1, SMALL_COST, SMALL_COST + 1, LARGE, 2 * LARGE]),
        ),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_all_come_each_caller_in_order_and_no_commit_is_too_large(
    given_: list[tuple[str, int, int]], every: int
) -> None:
    waiting: Waiting[str] = Waiting()
    taken: list[Batch[str]] = []

    def take() -> None:
        commit = waiting.take()
        assert len(commit) == 1 or sum(one.cost for one in commit) <= MAX_COMMIT_COST
        taken.extend(commit)

    for number, (peer, caller, cost) in enumerate(given_):
        waiting.add(batch(str(number), cost, peer, caller))
        if number % every == 0:
            take()
    while waiting.count:
        take()
    assert sorted(int(one.works[0]) for one in taken) == list(range(len(given_)))
    for who in {(one.peer, one.caller) for one in taken}:
        mine = [int(one.works[0]) for one in taken if (one.peer, one.caller) == who]
        assert mine == sorted(mine)
