"""A rolling upgrade from this wave's start, in short: less load, and of each kind of data one node goes back.

`python -m tests.upgrade.rolling` is the long one, with both archives.
"""

from pathlib import Path

from tests.kit.ports import ports_held
from tests.kit.process import ROOT
from tests.upgrade.rolling import OLD, Plan, Version, drive, sources_of


def test_nodes_become_this_version_one_by_one_and_nothing_is_lost(tmp_path: Path) -> None:
    old = Version.of_sources(sources_of(OLD, tmp_path))
    back = ("be1", "be2", "mupdate")
    with ports_held(40) as base:
        plan = Plan(back=back, between_s=0.5, users=2, workers=1, port_base=base)
        wrong = drive(old, Version.of_sources(ROOT), tmp_path / "murder", plan)
    assert wrong == []
