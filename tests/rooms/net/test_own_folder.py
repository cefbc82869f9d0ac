"""A folder for sockets is made once, and taken again."""

from pathlib import Path

from murder.net.own_folder import make_own_folder


def test_it_is_made_for_its_owner_only_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "control"
    make_own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)  # a group may look
    make_own_folder(folder)
