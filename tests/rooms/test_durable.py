"""A file is replaced as a whole or not at all; what a power cut leaves is seen in tests/faults."""

import os
from pathlib import Path

import pytest

from murder.durable import replace_file


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x"
    replace_file(path, b"old")
    replace_file(path, b"new", 0o644)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_draft_is_none_of_the_names_that_a_folder_lists(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()  # where a folder stands, no file comes
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "x", b"new", prefix="%")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "none" / "x", b"")


def test_the_owner_and_mode_of_the_old_file_stay_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "x"
    replace_file(path, b"old", keep_owner=True)  # there is none yet
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 4711, 4712)
    before = path.stat()
    replace_file(path, b"new", keep_owner=True)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
