"""The folder of a backup in wrong hands, or after a disk that lied: nothing outside it is read, moved or removed, nobody
waits for ever, and each fault is one sentence."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from murder.admin.operate.backup.keep import Verifying, prune
from murder.admin.operate.backup.kept import (
    Entry,
    KeptMailbox,
    Page,
    Point,
    Unit,
    keep_point,
    put_mailbox,
    put_unit,
    read_mailbox,
    read_page,
    read_point,
    read_unit,
)
from murder.admin.operate.backup.vault import Damaged, Vault, open_vault
from murder.errors import Refusal
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import ModSeq, Uid, UidValidity
from murder.model.name import MailboxName

ANA = MailboxName(b"user.ana")
POINT = "20261101T000000Z"


def made(folder: Path) -> Vault:
    """A backup of one empty mailbox."""
    vault = open_vault(folder, make=True)
    identity = CarriedIdentity("a1", UidValidity(1))
    portrait = Portrait(identity, Uid(1), ModSeq(1))
    page = Page(0, vault.put_json([]), 0, 0)
    entry = put_mailbox(vault, KeptMailbox(ANA, "be1", "", portrait, b"", {}, [page]))
    unit = put_unit(vault, Unit(ANA, [entry], []))
    listed = vault.put(b"")
    vault.settle_all()
    keep_point(vault, Point(POINT, 0.0, 1.0, "all", {ANA: unit}, {}, listed))
    return vault


def rewritten(vault: Vault, change: Callable[[dict[str, Any]], object]) -> None:
    path = vault.folder / "points" / f"{POINT}.json"
    told = json.loads(path.read_bytes())
    change(told)
    path.write_bytes(json.dumps(told).encode())


OUTSIDE = ["../../../{0}", "aa/../../../{0}", "", "ab", "Z" * 64, "/" + "a" * 63, "é" * 64]


@pytest.mark.parametrize("digest", OUTSIDE)
async def test_a_name_that_is_no_digest_leads_nowhere(digest: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    vault = made(tmp_path / "vault")
    digest = digest.format("precious")
    rewritten(vault, lambda told: told.update(list=digest, units={"user.ana": digest}))
    verified = await Verifying(vault).run([POINT])
    assert len(verified.problems) >= 1
    assert all("is no object's name" in problem for problem in verified.problems)
    assert precious.read_bytes() == b"precious"
    for read in (vault.read, vault.path_of, vault.put_aside, vault.has):
        with pytest.raises(Damaged):
            read(digest)


def linked(path: Path, target: Path) -> None:
    path.rename(path.with_name(path.name + ".was"))
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["objects/new", "objects", "points", "restores", "damaged"])
def test_a_folder_that_is_a_link_is_refused_before_anything_is_done(
    name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    vault = made(tmp_path / "vault")
    linked(vault.folder / name, outside)
    with pytest.raises(Refusal, match="tampered"):
        open_vault(vault.folder)
    if name == "objects/new":
        with pytest.raises(Refusal, match="tampered"), vault.locked():
            raise AssertionError("it was entered")
    assert (outside / "precious").exists()


def test_what_is_removed_is_in_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    vault = made(tmp_path / "vault")
    (vault.folder / "objects" / "zz").symlink_to(outside)  # no name of ours: passed over
    assert prune(vault, []).objects == 0
    fresh = next(path for path in vault.folders() if path.name != "new")
    linked(fresh, outside)
    with pytest.raises(Refusal):
        prune(vault, [])
    assert (outside / "precious").exists()


def piped(path: Path) -> None:
    os.mkfifo(path)


def to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("put", [piped, to_device, sparse, Path.mkdir])
async def test_what_is_no_file_is_told_at_once(
    put: Callable[[Path], object], tmp_path: Path
) -> None:
    vault = made(tmp_path / "vault")
    path = vault.path_of(vault.point(POINT)["list"])
    path.unlink()
    put(path)
    with pytest.raises(Damaged):
        vault.read(vault.point(POINT)["list"])
    (problem,) = (await Verifying(vault).run([POINT])).problems
    assert str(path) in problem
    assert not path.exists() and not path.is_symlink()  # aside
    point = vault.folder / "points" / f"{POINT}.json"
    point.unlink()
    put(point)
    with pytest.raises(Refusal):
        read_point(vault, POINT)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"7",
        b"[]",
        b"{}",
        b"[[[]]]",
        b'{"root": 7, "mailboxes": [[]], "subscriptions": {}}',
        b'{"root": "\\ud800", "mailboxes": [["a"]], "subscriptions": 7}',
        b'{"name": "a", "server": 1, "partition": 2, "portrait": 7, "acl": "", "notes": [], "pages": []}',
        b'{"format": 1, "began": "x", "ended": 1e999, "units": [], "missing": 7}',
    ],
)
def test_objects_that_nobody_has_written_are_sentences(octets: bytes, tmp_path: Path) -> None:
    vault = made(tmp_path / "vault")
    digest = vault.put(octets)
    assert digest == hashlib.sha256(octets).hexdigest()
    vault.settle()
    for read in (read_unit, read_mailbox, read_page):
        if read is read_page and octets == b"[]":
            continue  # a page of nothing
        with pytest.raises(Refusal):
            read(vault, digest)
    (vault.folder / "points" / f"{POINT}.json").write_bytes(octets)
    with pytest.raises(Refusal):
        read_point(vault, POINT)


def test_files_beside_the_points_are_no_points(tmp_path: Path) -> None:
    vault = made(tmp_path / "vault")
    for name in ("x.json", "20261101T000000Z .json", "20261101T000000Z-99999999999.json"):
        (vault.folder / "points" / name).write_bytes(b"{}")
    assert vault.points() == [POINT]
    with pytest.raises(Refusal):
        vault.point("../FORMAT")


async def test_a_unit_that_is_whole_and_senseless_is_told_and_the_others_are_verified(
    tmp_path: Path,
) -> None:
    vault = made(tmp_path / "vault")
    senseless = vault.put(b"7")
    entry = Entry(ANA, vault.put(b"{}"), 0, 0)
    other = put_unit(vault, Unit(ANA, [entry], []))
    vault.settle()
    rewritten(vault, lambda told: told["units"].update({"user.bob": senseless, "user.eve": other}))
    verified = await Verifying(vault).run([POINT])
    assert len(verified.problems) == 2
    assert verified.points == 1
