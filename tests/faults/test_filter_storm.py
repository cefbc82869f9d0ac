"""Scripts and deliveries while backends die (`python -m tests.faults.filter_storm` for longer), and scripts that move."""

from collections.abc import Iterator
from threading import Event

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


def test_a_death_between_a_mail_servers_deed_and_its_word_redirects_twice(ready: Storm) -> None:
    """Nobody can know (RFC 1047): no more than twice, then, and others go on."""
    demo, taken = ready.demo, ready.sink.taken
    user, node = demo.user(2), demo.home(2)["node"]
    to = f"{user}@elsewhere.example"

    def redirected(word: str) -> int:
        return taken[to, f"{word}@storm.example"]

    def kill() -> None:
        demo.node("kill", node)
        dead.set()

    dead = Event()
    ready.sink.deeds[to] = kill
    demo.deliver(demo.frontend, user, message("near", message_id="deed@storm.example"))
    until(lambda: dead.is_set() and redirected("deed") == 1, "it is taken")
    demo.node("start", node)
    until(lambda: redirected("deed") == 2, "it is sent again")
    later = message("near", message_id="later@storm.example")
    until(lambda: demo.deliver(demo.frontend, user, later).startswith("250"), "others come")
    until(lambda: redirected("later") == 1, "and are sent")
    assert redirected("deed") == 2
    assert taken[to.replace("@", ".note@"), "deed@storm.example"] <= 1


def test_mail_that_waits_is_kept_where_its_user_has_moved(ready: Storm) -> None:
    demo, number, to = ready.demo, 3, "nobody@elsewhere.example"
    user = demo.user(number)
    with ManageSieve(demo.frontend["host"], demo.frontend["sieve"]) as client:
        assert client.login(user, demo.password).is_ok
        client.ask('PUTSCRIPT "all"', f'redirect "{to}";'.encode())
    ready.sink.says[to] = b"451 later\r\n"
    octets = message("near", message_id="waits@storm.example")
    assert demo.deliver(demo.frontend, user, octets).startswith("250")
    until(lambda: ready.sink.tries[to] > 0, "it is tried")
    source, _ = pair(demo, number)
    target = demo.backends[demo.backends.index(source) - 1]
    assert xfer(demo, number, source, target)[0] == "OK"
    assert ready.found(user, "INBOX")["waits@storm.example"] == 0
    ready.sink.says[to] = b"554 never\r\n"
    until(lambda: ready.found(user, "INBOX")["waits@storm.example"] == 1, "it is kept", 120)


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
