"""That the command works: its table, and its exit code. What strangers do to a node is no test: it takes half an hour."""

import subprocess
import sys
from pathlib import Path

from tests.attacks.run import CPU_S, GROWTH, WAIT_S, Outcome
from tests.attacks.table import ROWS
from tests.attacks.watching import Wait
from tests.kit.process import ROOT

TWO = ("fe imap greeted: empty lines", "mu mupdate greeted: empty lines")


def test_names_of_rows_are_their_own() -> None:
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)


def test_rows_are_run_and_told(archive: Path, tmp_path: Path) -> None:
    assert archive.exists()
    table = tmp_path / "table"
    words = ["--unified", "--rows", ",".join(TWO), "--seconds", "0.2", "--out", str(table)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.run", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stderr  # others may have the machine
    told = table.read_text()
    assert all(f"\n{name} " in told for name in TWO)
    missed = sum(" MISS " in line for line in told.splitlines())
    assert f"\n2 rows, {missed} missed" in told
    assert done.returncode == bool(missed)


def test_what_a_row_is_judged_by() -> None:
    def verdict(seconds: float, cpu_s: float, grown: int = 0, entered: int = 1) -> str:
        waits = [Wait(0.001, 0.0, "mu"), Wait(seconds, cpu_s, "fe")]
        return Outcome("a row", waits, {"fe": grown}, [], entered).verdict

    assert verdict(WAIT_S, 1.0) == "ok"
    assert verdict(1.0, CPU_S) == "ok cpu"
    assert verdict(1.0, CPU_S * 2) == "MISS"
    assert verdict(0.0, 0.0, grown=GROWTH + 1) == "MISS"
    assert verdict(0.0, 0.0, entered=0) == "MISS"
    lost = Wait(0.0, 0.0, "be", lost="be lost its session")
    assert Outcome("a row", [lost], {"be": 0}, [], 1).verdict == "MISS"
    assert Outcome("a row", [], {"be": 0}, ["be: 1 processes ended"], 1).faults
