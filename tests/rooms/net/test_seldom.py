"""Lines that strangers can cause are counted, beyond a few."""

from murder.net.seldom import Seldom, why_no_tls


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


def test_a_handshake_that_somebody_hangs_up_on_has_a_problem_too() -> None:
    """A node that does not trust our certificate sends no word of it."""
    assert "does not trust our certificate" in why_no_tls(ConnectionResetError())
    assert why_no_tls(OSError("wrong version number")) == "wrong version number"
