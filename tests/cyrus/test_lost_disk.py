"""A backend of ours in a Cyrus murder loses its disk, and is restored from a backup: the Cyrus master goes on as it was."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import following, rows_at
from tests.cyrus.our_roles import deliver, logged_in, message, ok, our_backend, subjects
from tests.kit.process import run_murder
from tests.kit.toml import write_config
from tests.kit.waiting import until

NAME = "be1.murder.test"


def operator_of(lab: Lab, folder: Path) -> tuple[Path, Mapping[str, Mapping[str, object]]]:
    """The file of an operator, who is `murder` to the master; and the backend's sections for their certificate."""
    authority = folder / "ca"
    run_murder("ca", "init", "--dir", authority)
    for name, role in ((NAME, "backend"), ("anna", "operator")):
        run_murder("ca", "issue", name, "--role", role, "--dir", authority, "--out", folder)
    tls = {"ca": str(authority / "ca.pem")}
    own = {"certificate": str(folder / f"{NAME}.pem"), "key": str(folder / f"{NAME}.key")}
    file = folder / "operator.toml"
    write_config(
        file,
        {
            "node": {"name": "operator", "data": str(folder / "nothing")},
            "tls": tls,
            "operator": {
                "certificate": str(folder / "anna.pem"),
                "key": str(folder / "anna.key"),
                "nodes": [f"{lab.backends[0]}:3906"],
            },
            "mupdate": following(lab.master[0]),
            f'servers."{NAME}"': {"address": lab.backends[0]},
        },
    )
    return file, {"tls": {**tls, **own}, "node": {"control": [f"{lab.backends[0]}:3906"]}}


def test_a_lost_backend_of_ours_comes_back_under_a_cyrus_master(
    cyrus_parts: Lab, tmp_path: Path
) -> None:
    lab, vault = cyrus_parts, tmp_path / "vault"
    file, secured = operator_of(lab, tmp_path)

    def ctl(*words: object) -> str:
        return run_murder("ctl", *map(str, words), "--config", file).stdout

    lab.run("start", "mupdate")
    with our_backend(tmp_path / "be1", "be1", lab.backends[0], lab.master[0], also=secured):
        admin = logged_in(lab.backends[0], "cyrus")
        for name in ("user/user1", "user/user1/Archive", "user/user2"):
            ok(admin.create(name))
        admin.logout()
        lab.run("start", "fe1")
        until(lambda: len(rows_at(lab.frontend)) >= 3, "the Cyrus frontend gets a list")
        client = logged_in(lab.frontend, "user1")
        ok(client.append("INBOX/Archive", r"(\Flagged)", "", message("kept")))
        client.logout()
        before = rows_at(*lab.master)
        ctl("backup", "run", "--to", vault)
    shutil.rmtree(tmp_path / "be1" / "data")
    (tmp_path / "be1" / "data").mkdir()
    for user in ("murder", "cyrus"):
        run_murder(
            "auth", "add", user, "--config", tmp_path / "be1" / "murder.toml", said="secret\n"
        )
    with our_backend(tmp_path / "be1", "be1", lab.backends[0], lab.master[0], also=secured) as node:
        node.until_said("resync.refused")
        assert rows_at(*lab.master) == before
        assert deliver(lab.frontend, "x", "user1", as_murder=True)["user1"][0] // 100 == 4
        restored = json.loads(ctl("restore", "backend", NAME, "--from", vault, "--yes", "--json"))
        assert restored
        assert [row[:3] for row in rows_at(*lab.master)] == [row[:3] for row in before]
        assert deliver(lab.frontend, "after", "user1", as_murder=True)["user1"][0] == 250
        client = logged_in(lab.frontend, "user1")
        assert subjects(client, "INBOX") == ["after"]
        assert subjects(client, "INBOX/Archive") == ["kept"]
        ok(client.create("INBOX/New"))  # it is served as ever
        client.logout()
    assert b"user.user1.New" in [row[1] for row in rows_at(*lab.master)]
