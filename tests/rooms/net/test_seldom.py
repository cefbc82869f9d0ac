"""Lines that strangers can cause are counted, beyond a few."""

from murder.net.seldom import Seldom


def test_beyond_some_in_a_period_they_are_counted_in_the_next_line() -> None:
    now = [100.0]
    seldom = Seldom(most=3, period_s=10.0, clock=lambda: now[0])
    said = [seldom.facts() for _ in range(1000)]
    assert said[:3] == [{}, {}, {}]
    assert said[3:] == [None] * 997
    now[0] += 9.9
    assert seldom.facts() is None
    now[0] += 0.1
    assert [seldom.facts() for _ in range(2)] == [{"unsaid": 998}, {}]
