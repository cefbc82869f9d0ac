"""Where new mailboxes go, asked by an operator: as the frontends decide, never to a backend that is drained or dead."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl, place

# a policy that the frontends have and the operator's own configuration has not
LAST = """
from murder.api import hookimpl


@hookimpl
def choose_backend(mailbox, candidates):
    if not (mailbox.owner or "").startswith("odd"):
        return None
    return max((one.location for one in candidates if one.reachable), key=str, default=None)
"""


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "2", "--backends", "3") as running:
        yield running


def set_policy(demo: Demo, ctl: Ctl, folder: Path) -> None:
    """Restart the frontend with one more plugin."""
    (folder / "placement_last.py").write_text(LAST)
    file = demo.folder / "fe1" / "murder.toml"
    demo.node("stop", "fe1")
    use = '"placement_last", "auth_file", "placement_with_parent", "placement_emptiest", "referral_never"'
    file.write_text(file.read_text() + f'\n[plugins]\npath = ["{folder}"]\nuse = [{use}]\n')
    demo.node("start", "fe1")


def test_all_ask_the_frontends(demo: Demo, ctl: Ctl, tmp_path: Path) -> None:
    set_policy(demo, ctl, tmp_path)
    said = ctl.json("placement", "explain", "user/odd1")
    assert (said["server"], said["by"]) == ("be3.murder.test", "fe1.murder.test")
    ctl("user", "create", "odd1")
    ctl("mailbox", "create", "user/odd2")
    assert {place(ctl, f"user/odd{number}") for number in (1, 2)} == {"be3.murder.test"}
    # drained: the next of the same policy
    ctl("backend", "weight", "be3", "0")
    assert ctl.json("placement", "explain", "user/odd3")["server"] == "be2.murder.test"
    ctl("user", "create", "odd3")
    assert place(ctl, "user/odd3") == "be2.murder.test"
    planned = ctl.json("backend", "drain", "be3", code=2)
    assert {one["to"] for one in planned if "odd" in one["name"]} == {"be2.murder.test"}
    # dead
    demo.node("kill", "be2")
    ctl("user", "create", "odd4")
    assert place(ctl, "user/odd4") == "be1.murder.test"
    demo.node("start", "be2")
    for number in ("1", "2"):
        ctl("backend", "weight", f"be{number}", "0")
    said = ctl("user", "create", "odd5", code=1)
    assert "No backend takes new mailboxes" in said and "--server" in said
    # without a frontend the plugins here decide, and it is said
    for number in ("1", "2", "3"):
        ctl("backend", "weight", f"be{number}", "--configured")
    demo.node("stop", "fe1")
    said = ctl("user", "create", "odd6")
    assert "no frontend could be asked" in said and "/fe1/data: it does not run;" in said
    assert place(ctl, "user/odd6") != "be3.murder.test", "emptiest: be3 has two"
    demo.node("start", "fe1")
