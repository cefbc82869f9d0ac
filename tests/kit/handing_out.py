"""How tests are handed out to several processes (`kit/beside.py`). Only there is pytest-xdist needed."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.kit.beside import unit_of


class HandingOut(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """One unit after the other, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False  # by their number of tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
