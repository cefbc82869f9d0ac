"""Copies of murder's sources, for tests that add to them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.kit.process import ROOT

LIMIT_S: Final = 60


def copy_sources(home: Path) -> Path:
    """Murder and its plugins in this folder, without what a compiler has left."""
    for folder in ("murder", "plugins"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return home


def replace_in(file: Path, old: str, new: str) -> None:
    """Of a file of such a copy: what stands in it once."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file}: {old!r}"
    file.write_text(text.replace(old, new))


def run_in(copy: Path, *arguments: str) -> str:
    """What Python says with these arguments, in such a copy."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
