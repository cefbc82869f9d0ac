"""`murder ctl user rename` and `delete` in other people's access lists, on a running murder."""

import pytest

from murder.admin.cli.program import main
from murder.model.entry import MailboxEntry
from murder.roles.mupdate.remote.client import MasterClient
from tests.kit.demo import Demo
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl


def give(demo: Demo, user: str) -> None:
    """To a user, in a shared mailbox and at both backends, one of it negative."""
    admin = demo.imap(demo.frontend, demo.info["admin"]["user"], demo.info["admin"]["password"])
    for name, who, rights in (
        ("user/user1", user, "lrs"),
        ("user/user2", user, "lrswi"),
        ("user/user2", f"-{user}", "w"),
        ("shared/one", user, "lr"),
        ("shared/one", f"{user}x", "l"),
    ):
        assert admin.setacl(name, who, rights)[0] == "OK"
    admin.logout()


def acl(ctl: Ctl, name: str) -> dict[str, str]:
    rights: dict[str, str] = ctl.json("mailbox", "acl", name)["acl"]
    rights.pop("anyone", None)
    return {who: "".join(sorted(letters)) for who, letters in rights.items()}


def test_rights_follow_a_new_name_and_go_with_the_user(ctl: Ctl, demo: Demo) -> None:
    ctl("mailbox", "create", "shared/one")
    ctl("user", "create", "ann", "--no-folders")
    ctl("mailbox", "create", "user/ann/own")
    give(demo, "ann")
    before = {name: acl(ctl, name) for name in ("user/user1", "user/user2", "shared/one")}
    plan = ctl("user", "rename", "ann", "eve", code=2)
    assert "4 access list entries" in plan and "user/user2" in plan and "-ann" in plan
    assert acl(ctl, "user/user1") == before["user/user1"]
    planned = ctl.json("user", "rename", "ann", "eve", code=2)
    assert {(one["name"], one["who"]) for one in planned["rights"]} == {
        ("user/user1", "ann"),
        ("user/user2", "ann"),
        ("user/user2", "-ann"),
        ("shared/one", "ann"),
    }
    assert "4 access list entries" in ctl("user", "rename", "ann", "eve", "--yes")
    for name, rights in before.items():
        renamed = {"ann": "eve", "-ann": "-eve"}
        assert acl(ctl, name) == {renamed.get(who, who): given for who, given in rights.items()}
    # left alone if wanted; then the same command again does the rest
    ctl("user", "rename", "eve", "ann", "--yes", "--keep-rights")
    assert "eve" in acl(ctl, "shared/one") and "ann" not in acl(ctl, "shared/one")
    ctl("user", "rename", "eve", "ann", "--yes")
    assert acl(ctl, "shared/one") == before["shared/one"]
    # a backend that is away: told, and done the next time
    away = next(one["node"] for one in demo.backends if one["name"] != home(ctl, "user/ann"))
    demo.node("stop", away)
    said = ctl("user", "delete", "ann", "--yes", code=1)
    assert "Run this again" in said and "2 removed" in said
    demo.node("start", away)
    plan = ctl("user", "delete", "ann", code=2)
    assert "0 mailboxes" in plan and "access list entr" in plan
    ctl("user", "delete", "ann", "--yes")
    for name in before:
        assert not acl(ctl, name).keys() & {"ann", "-ann"}, name
    assert acl(ctl, "shared/one")["annx"] == "l"
    assert "No user ann" in ctl("user", "delete", "ann", "--yes", code=1)


def home(ctl: Ctl, name: str) -> str:
    server: str = ctl.json("mailbox", "find", name)["server"]
    return server


def test_what_lies_on_several_backends_is_renamed_as_a_whole_or_not_at_all(ctl: Ctl) -> None:
    ctl("user", "create", "zoe", "--server", "be1", "--no-folders")
    ctl("mailbox", "create", "user/zoe/far", "--server", "be2")
    plan = ctl("user", "rename", "zoe", "kim", code=2)
    assert "be1.murder.test" in plan and "be2.murder.test" in plan
    # a name that the other backend has refuses all of it
    ctl("mailbox", "create", "user/ken/far", "--server", "be2")
    said = ctl("mailbox", "rename", "user/zoe", "user/ken", code=1)
    assert "be2.murder.test" in said and "exists already" in said
    assert home(ctl, "user/zoe") == "be1.murder.test"
    ctl("mailbox", "delete", "user/ken/far", "--yes")
    ctl("user", "rename", "zoe", "kim", "--yes")
    assert home(ctl, "user/kim") == "be1.murder.test"
    assert home(ctl, "user/kim/far") == "be2.murder.test"
    ctl("mailbox", "rename", "user/kim", "user/zoe")
    assert home(ctl, "user/zoe/far") == "be2.murder.test"
    ctl("mailbox", "rename", "user/zoe", "user/kim")
    ctl("user", "delete", "kim", "--yes")


# what would make its caller wait for, and hold, the list of a million mailboxes
PARTIAL = (
    *("user create eva --no-folders", "user create ida --server be2", "mailbox create user/eva/x"),
    *("mailbox list user/ev*", "mailbox list eva", "mailbox list --server be1", "mailbox list"),
    *("mailbox list --deleted", "mailbox show user/eva", "mailbox find user/eva", "user show eva"),
    *("mailbox move eva --to be1 --yes", "mailbox move user/ev* --to be2 --yes", "move status"),
    *("backend show be1", "backend weight", "backend test-login be2", "placement explain user/zoe"),
    *("mailbox rename user/eva/x user/eva/y", "mailbox force user/eva --to be2", "expire"),
    *("user rename eva eve --yes", "user delete eve --yes", "user undelete eve"),
)


def test_what_is_about_something_does_not_fetch_the_whole_list(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    all_of_it = MasterClient.list_all

    async def list_all(self: MasterClient, *, acls: bool = True) -> list[MailboxEntry]:
        asked.append(command)
        return await all_of_it(self, acls=acls)

    monkeypatch.setattr(MasterClient, "list_all", list_all)
    for command in PARTIAL:
        code = main(["ctl", *command.split(), "--config", str(demo.info["operator"])])
        said = capsys.readouterr()
        planned = 2 if command.startswith(("mailbox force", "expire")) else 0
        assert code in (0, planned), (command, said)
    assert asked == ["mailbox list"]
