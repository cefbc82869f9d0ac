"""Scripts and deliveries while backends die (`python -m tests.faults.filter_storm` for longer), and scripts that move."""

from collections.abc import Iterator

import pytest

from tests.faults.filter_storm import Storm, storm
from tests.faults.moves.test_moves import moves, pair, xfer
from tests.faults.moves.test_moves_verified import verified
from tests.kit.demo import message
from tests.kit.managesieve import ManageSieve
from tests.kit.waiting import until

KILLS = 2
SEED = 7


@pytest.fixture(scope="module")
def ready() -> Iterator[Storm]:
    with storm(SEED) as one:
        yield one


def test_nothing_is_lost_and_nothing_doubled_while_backends_die(ready: Storm) -> None:
    ready.rage(60, KILLS)
    print(ready.check())


def test_scripts_move_with_their_user_and_are_verified(ready: Storm) -> None:
    demo, user = ready.demo, 1
    source, _ = pair(demo, user)
    target = demo.backends[demo.backends.index(source) - 1]  # the next one has a mailbox of theirs
    assert xfer(demo, user, source, target)[0] == "OK"
    root = f"user.{demo.user(user)}"
    (record,) = [
        one
        for one in moves(demo, source)
        if one["side"] == "out" and one["state"] == "done" and one["root"] == root
    ]
    told = verified(demo, record["id"], 0)
    mailboxes = {one["mailbox"]: one["messages"] for one in told["mailboxes"]}
    assert told["result"] == "same", told
    assert mailboxes[f"user/{demo.user(user)}/#sieve"] == 1
    with ManageSieve(demo.frontend["host"], demo.frontend["sieve"]) as client:
        assert client.login(demo.user(user), demo.password).is_ok
        assert client.scripts() == {"all": True}
    octets = message("near", message_id="moved@storm.example")
    until(
        lambda: demo.deliver(demo.frontend, demo.user(user), octets).startswith("250"), "it arrives"
    )
    assert ready.found(demo.user(user), "INBOX/near")["moved@storm.example"] == 1
