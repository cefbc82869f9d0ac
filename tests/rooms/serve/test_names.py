"""Who is meant by what somebody calls themselves."""

import pytest

from murder.auth.gate import Gate
from tests.rooms.backend.server import OnePassword


@pytest.mark.parametrize(
    ("given", "with_domains", "without"),
    [
        ("ana", ("ana", ""), ("ana", "")),
        ("ana@example.org", ("ana@example.org", ""), ("ana", "")),
        ("ana+Work", ("ana", "Work"), ("ana", "Work")),
        ("ana+Work@example.org", ("ana@example.org", "Work"), ("ana", "Work")),
        ("ana+a+b", ("ana", "a+b"), ("ana", "a+b")),
        ("+a", ("+a", ""), ("+a", "")),
        ("@example.org", ("@example.org", ""), ("@example.org", "")),
        ("", ("", ""), ("", "")),
    ],
)
def test_a_detail_and_a_domain_are_taken_off(
    given: str, with_domains: tuple[str, str], without: tuple[str, str]
) -> None:
    assert Gate(OnePassword()).known_as(given) == with_domains
    assert Gate(OnePassword(), domains=False).known_as(given) == without
