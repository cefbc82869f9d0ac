"""A log on etcd, with members of Debian's package: the contract of its kind, and what only etcd can do to it."""

from collections.abc import Callable, Iterator

import pytest

from murder.api.contract.check import Check
from murder.api.contract.list_log import LIST_CHECKS
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.kit.etcd import Cluster, cluster

Make = Callable[[], EtcdLog]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd"), 1) as found:
        yield found


@pytest.fixture
def make(members: Cluster, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Logs below a prefix of the test's own."""
    made: list[EtcdLog] = []

    def make_one(timeout_s: float = 10.0) -> EtcdLog:
        prefix = f"/{request.node.name}/"
        made.append(EtcdLog(Settings(members.endpoints, prefix=prefix, timeout_s=timeout_s)))
        return made[-1]

    yield make_one
    for log in made:
        log.close()


@pytest.mark.parametrize("check", LIST_CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_to_the_contract(check: Check, make: Make) -> None:
    await check(make)
