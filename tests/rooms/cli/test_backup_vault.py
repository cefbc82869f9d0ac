"""The folder of a backup alone: what a power cut leaves of it, which points stay, what people call a time."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from murder.admin.operate.backup.keep import kept_of
from murder.admin.operate.backup.kept import moment
from murder.admin.operate.backup.vault import Damaged, open_vault
from murder.errors import Refusal
from tests.conftest import cannot_run
from tests.kit.powercut import MISSING, Story
from tests.kit.process import ROOT

WRITER = """
import sys
from pathlib import Path
from murder.admin.operate.backup.vault import open_vault
vault = open_vault(Path(sys.argv[1]))
for number in range(4):
    with vault.locked():
        digests = [vault.put(b"%d of %d" % (each, number // 2) * 500) for each in range(5)]
        if number == 2:  # a run that is killed here: its objects are found by the next
            vault.settle()
            continue
        vault.settle_all()
        vault.keep_point("2026110%dT000000Z" % number, {"format": 1, "names": digests})
"""


def test_a_point_is_whole_whenever_the_power_fails(tmp_path: Path) -> None:
    if MISSING:
        cannot_run(MISSING)
    folder = tmp_path / "vault"
    open_vault(folder, make=True)
    story = Story(folder)
    command = [sys.executable, "-c", WRITER, str(folder)]
    subprocess.run(story.traced(command), check=True, timeout=120, cwd=ROOT)
    seen = set()
    for disk in story.cuts(Random(1), 40):
        copy = tmp_path / "copy"
        disk.write_to(copy, Random(2))
        vault = open_vault(copy)
        seen.add(len(vault.points()))
        for name in vault.points():
            for digest in vault.point(name)["names"]:
                assert vault.read(digest)
    assert len(seen) > 1


def test_an_object_that_is_not_what_its_name_says_is_not_given(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault", make=True)
    digest = vault.put(b"mail")
    assert vault.put(b"mail") == digest
    vault.settle()
    assert vault.read(digest) == b"mail"
    vault.path_of(digest).write_bytes(b"other")
    with pytest.raises(Damaged, match="damaged"):
        vault.read(digest)
    vault.put_aside(digest)
    with pytest.raises(Damaged, match="missing"):
        vault.read(digest)
    assert vault.reads_anew


def test_there_is_one_writer_and_nothing_goes_while_somebody_reads(tmp_path: Path) -> None:
    vault, other = open_vault(tmp_path, make=True), open_vault(tmp_path)
    with vault.locked(), pytest.raises(Refusal, match="at work"), other.locked():
        raise AssertionError("two writers")
    with (
        vault.reading(),
        other.reading(),
        pytest.raises(Refusal, match="at work"),
        vault.removing(),
    ):
        raise AssertionError("removed while it is read")


POINTS = [f"2026{month:02}{day:02}T020000Z" for month in (9, 10, 11) for day in (1, 15, 28)]


@pytest.mark.parametrize(
    ("keep", "whole", "stays"),
    [
        ({"daily": 2}, POINTS, ["20261115", "20261128"]),
        ({"monthly": 3}, POINTS, ["20260928", "20261028", "20261128"]),
        ({"monthly": 2, "daily": 2}, POINTS, ["20261028", "20261115", "20261128"]),
        ({"yearly": 5}, POINTS, ["20261128"]),
        ({"daily": 1}, POINTS[:4], ["20261001", "20261128"]),  # the last whole one never goes
    ],
)
def test_points_stay_by_periods(keep: dict[str, int], whole: list[str], stays: list[str]) -> None:
    assert [name[:8] for name in kept_of(dict.fromkeys(POINTS, "all"), keep, whole)] == stays


def test_each_backends_points_stay_by_themselves() -> None:
    """They are taken one after the other each night: the last of the day is not that of all."""
    nights = {f"202611{day}T0{hour}0000Z": f"be{hour}" for day in (10, 11, 12) for hour in (1, 2)}
    kept = kept_of(nights, {"daily": 2}, set(nights))
    assert kept == [name for name in sorted(nights) if name[6:8] in ("11", "12")]


def test_times_are_told_as_people_tell_them() -> None:
    assert moment("2026-11-20") == datetime(2026, 11, 21, tzinfo=UTC)
    assert moment("2026-11-20T03:00") == datetime(2026, 11, 20, 3, 0, 1, tzinfo=UTC)
    assert moment("2026-11-20T03:00+01:00") == datetime(2026, 11, 20, 2, 0, 1, tzinfo=UTC)
    assert moment("20261120T030000Z") == datetime(2026, 11, 20, 3, 0, 1, tzinfo=UTC)
    with pytest.raises(Refusal, match="is no time"):
        moment("yesterday")
