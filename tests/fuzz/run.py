"""Fuzz all targets, or those named, two at a time: `python3 build.py fuzz [--seconds N] [--seed N] [NAME ...]`.

N seconds for each; 20 if it is not said. Ends with 1 where something was found, and prints what. Every finding becomes a
row of tests/fuzz/seeds.py.
"""

import argparse
import concurrent.futures
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent


def fuzz(name: str, seconds: int, folder: Path, seed: int) -> tuple[str, int, str]:
    """One target in a process of its own: its name, exit code and output."""
    words = [sys.executable, "-m", "tests.fuzz.one", name, str(seconds), str(folder), str(seed)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=ROOT, timeout=seconds + 120, check=False
        )
    except subprocess.TimeoutExpired as expired:
        return name, 1, f"it hangs: {expired}"
    said = (done.stdout + done.stderr).splitlines(keepends=True)
    return name, done.returncode, "".join(it for it in said if "INFO: Instrumenting" not in it)


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument(
        "--seed", type=int, default=0, help="of what is random; 0: another each time"
    )
    parser.add_argument("--keep", type=Path, help="a folder to keep corpus and findings in")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    engine = (
        "atheris" if importlib.util.find_spec("atheris") else "hypothesis (atheris is not here)"
    )
    folder = wanted.keep or Path(tempfile.mkdtemp(prefix="murder-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {wanted.seconds} s each with {engine}; findings in {folder}", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        names = wanted.names or list(TARGETS)
        for name, code, said in pool.map(
            lambda it: fuzz(it, wanted.seconds, folder, wanted.seed), names
        ):
            runs = [line for line in said.splitlines() if "number_of_executed_units" in line]
            print(
                f"fuzz: {name}: {'found something' if code else 'nothing'} {' '.join(runs)}",
                flush=True,
            )
            if code:
                failed += 1
                print(said[-6000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
