"""Several processes run the tests: each is run once, what belongs together by one of them, what takes long first."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from tests.kit import memory
from tests.kit.beside import SECONDS, TOGETHER, longest_first, once, unit_of
from tests.kit.process import ROOT

CONFTEST = """
from tests.conftest import pytest_collection_modifyitems, pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler
"""
TEST = """
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    with open("told", "a") as told:
        print(os.environ["PYTEST_XDIST_WORKER"], os.environ["PYTEST_CURRENT_TEST"].split()[0], file=told)
"""
FILES = (
    "tests/rooms/net/test_c.py",
    "tests/rooms/net/test_d.py",
    "tests/cyrus/test_a.py",
    "tests/cyrus/test_b.py",
)


def test_each_test_is_run_once_and_a_unit_by_one_process(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TEST)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\n"
    )
    inherited = {name: word for name, word in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "auto", f"--basetemp={tmp_path / 'base'}"],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "16 passed" in done.stdout, done.stdout + done.stderr
    lines = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    assert len({test for _, test in lines}) == len(lines) == 16
    by_unit = defaultdict(set)
    for worker, test in lines:
        by_unit[unit_of(test)].add(worker)
    assert set(by_unit) == {"tests/cyrus", "tests/rooms/net/test_c.py", "tests/rooms/net/test_d.py"}
    assert all(len(workers) == 1 for workers in by_unit.values()), by_unit
    assert len(set.union(*by_unit.values())) > 1
    first = {worker: unit_of(test) for worker, test in reversed(lines)}
    assert "tests/cyrus" in first.values(), lines


def test_what_takes_long_begins_first_and_the_rest_by_its_number() -> None:
    tests = ["tests/x/test_few.py::a", *(f"tests/x/test_many.py::b[{n}]" for n in range(9))]
    long = next(iter(SECONDS))
    assert longest_first([*tests, f"{long}::c"]) == [
        long,
        "tests/x/test_many.py",
        "tests/x/test_few.py",
    ]


def test_what_is_named_is_there() -> None:
    assert all((ROOT / name).exists() for name in (*SECONDS, *TOGETHER))
    assert list(SECONDS.values()) == sorted(SECONDS.values(), reverse=True)


def make(folder: Path) -> None:
    def made() -> None:
        with (folder / "told").open("a") as told:
            told.write("made\n")

    once(folder, "it", made)
    assert (folder / "told").read_text() == "made\n"


def test_what_all_processes_use_is_made_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=make, args=(tmp_path,)) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 8


def test_what_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    def fails() -> None:
        raise AssertionError("this time")

    with pytest.raises(AssertionError):
        once(tmp_path, "it", fails)
    make(tmp_path)


def test_files_are_where_somebody_has_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    memory.use_memory()
    assert os.environ["TMPDIR"] == str(tmp_path)


def test_without_room_in_memory_files_are_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    for name, value in (("ROOM", 1 << 60), ("AT", Path("/nowhere"))):
        monkeypatch.setattr(memory, name, value)
        memory.use_memory()
        assert "TMPDIR" not in os.environ


def test_what_outlives_a_crash_is_tested_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(memory, "ROOM", 0)
    monkeypatch.delenv("TMPDIR", raising=False)
    disk = tempfile.gettempdir()
    memory.use_memory()
    assert tempfile.gettempdir() == str(memory.AT) != disk
    with memory.on_disk():
        assert tempfile.gettempdir() == disk and "TMPDIR" not in os.environ
    assert tempfile.gettempdir() == str(memory.AT)
    monkeypatch.setenv("TMPDIR", disk)
    with memory.on_disk():
        assert os.environ["TMPDIR"] == disk
