"""What wrong passwords cost an address, and how many connections a user may have."""

import asyncio
import mmap

import pytest

from murder.config.value import parse_network
from murder.errors import Code, Refusal
from murder.login.crowd import Crowd
from murder.login.penalty import Penalties
from murder.net.tally import BOARDS, PART_OCTETS, Counts


def fail(penalties: Penalties, address: str, times: int = 1) -> None:
    async def run() -> None:
        for _ in range(times):
            await penalties.failed(address)

    asyncio.run(run())


def test_each_failure_costs_twice_as_much_up_to_the_most() -> None:
    penalties = Penalties(0.002, 0.015)
    delays = []
    for _ in range(5):
        fail(penalties, "192.0.2.1")
        delays.append(penalties.delay_s("192.0.2.1"))
    assert delays == [0.004, 0.008, 0.015, 0.015, 0.015]
    assert penalties.delay_s("192.0.2.2") == 0
    penalties.succeeded("192.0.2.1")
    assert penalties.delay_s("192.0.2.1") == 0


def test_a_trusted_network_never_waits_and_is_not_counted() -> None:
    penalties = Penalties(30, 30, (parse_network("192.0.2.0/24"),))
    fail(penalties, "192.0.2.9", times=3)
    assert penalties.delay_s("192.0.2.9") == 0


def test_one_customers_ipv6_addresses_are_one() -> None:
    penalties = Penalties(0.001, 1)
    fail(penalties, "2001:db8::1")
    assert penalties.delay_s("2001:db8::ffff") > 0
    assert penalties.delay_s("2001:db8:0:1::1") == 0


def test_all_workers_count_together() -> None:
    memory = mmap.mmap(-1, BOARDS * 2 * PART_OCTETS)
    one, two = (Penalties(0.002, 10, counts=Counts(memory, 2, own)) for own in range(2))
    assert one.delay_s("192.0.2.1") == two.delay_s("192.0.2.1") == 0
    for penalties in (one, two, one):
        fail(penalties, "192.0.2.1")
    assert one.delay_s("192.0.2.1") == two.delay_s("192.0.2.1") == 0.016
    two.succeeded("192.0.2.1")
    assert one.delay_s("192.0.2.1") == two.delay_s("192.0.2.1") == 0
    fail(one, "192.0.2.1")
    assert two.delay_s("192.0.2.1") == 0.004


def test_a_user_may_have_so_many_connections() -> None:
    crowd = Crowd(2)
    crowd.enter("ana")
    crowd.enter("ana")
    crowd.enter("bob")
    with pytest.raises(Refusal) as refused:
        crowd.enter("ana")
    assert refused.value.code is Code.LIMIT
    crowd.leave("ana")
    crowd.enter("ana")
