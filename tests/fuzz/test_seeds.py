"""Every seed through its target, as it is and repeated to the size that a peer may send."""

import pytest

from murder.model.sasl import ProvenCredentials
from tests.fuzz.logins import exchange
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, long


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_find_nothing(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        TARGETS[name](long(seed, 8192))


@pytest.mark.parametrize(
    ("mechanism", "responses"),
    [
        ("OAUTHBEARER", [b"n,a=ana,\x01host=x\x01port=143\x01auth=Bearer abc\x01\x01"]),
        ("XOAUTH2", [b"user=ana\x01auth=Bearer abc\x01\x01"]),
        ("GSSAPI-TAKEN", [b"ticket", b"", b"\x01\xff\xff\xffana"]),
    ],
)
def test_exchanges_that_are_fuzzed_can_come_to_their_end(
    mechanism: str, responses: list[bytes]
) -> None:
    assert isinstance(exchange(mechanism, responses), ProvenCredentials)
