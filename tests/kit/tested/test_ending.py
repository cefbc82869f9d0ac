"""A benchmark that is told to end ends, and with it the servers that it has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.process import END_S, ROOT
from tests.kit.waiting import until

BENCH = """
import sys
from pathlib import Path
from tests.kit.process import Program
from tests.kit.waiting import pause

folder = Path(sys.argv[1])
with Program(["sleep", "1000"], folder / "log") as program:
    (folder / "made").write_text(str(program.pid))
    (folder / "made").rename(folder / "pid")
    while True:
        pause(1000, "as a benchmark's load")
"""


THREADED = """
import threading
threading.Thread(target=threading.Event().wait).start()
"""


@pytest.mark.parametrize("before", ["", THREADED], ids=["alone", "with a thread that goes on"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_a_benchmark_has_started_ends_with_it(
    number: signal.Signals, before: str, tmp_path: Path
) -> None:
    (tmp_path / "toy_bench.py").write_text(before + BENCH)
    command = [sys.executable, "-m", "tests.load.ending", "toy_bench", str(tmp_path)]
    places = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    bench = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **places})
    until((tmp_path / "pid").exists, "the server is there")
    server = int((tmp_path / "pid").read_text())
    bench.send_signal(number)
    try:
        assert bench.wait(END_S) == 128 + number
    finally:
        bench.kill()
    assert not Path(f"/proc/{server}").exists()
