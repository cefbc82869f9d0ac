"""Plugins: found, loaded and asked in the operator's order; whatever is wrong with one is said at the start."""

import asyncio
from pathlib import Path

import pytest

from murder.api import BackendLoad, Conduct, NewMailbox, ReferralQuestion
from murder.config import Config, ConfigError, load_config
from murder.hooks import Plugins, bundled_plugins, load_plugins
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName

AUTH = """
from murder.api import Identity, hookimpl

class Everybody:
    async def verify(self, user, password): return Identity(user)
    async def lookup(self, user): return Identity(user)

@hookimpl
def make_auth_backend(): return Everybody()
"""
PLACE = """
from murder.api import hookimpl
from murder.model.entry import Location

@hookimpl
def choose_backend(mailbox):
    return Location("{server}") if mailbox.name.startswith(b"{prefix}") else None
"""
LOADS = [BackendLoad(Location(f"be{n}"), mailboxes=n) for n in (1, 2, 3)]
ANYTHING = NewMailbox(MailboxName(b"user.a"), "a", "a", None)


def configured(folder: Path, text: str = "", **plugins: str) -> Config:
    """A configuration in a folder with these site plugins."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    for name, source in plugins.items():
        (site / f"{name}.py").write_text(source)
    file = folder / "murder.toml"
    path = "" if "[plugins]" in text else '[plugins]\npath = ["site"]\n'
    file.write_text(f'[node]\nname = "a"\ndata = "data"\n{path}{text}')
    return load_config(file)


def loaded(folder: Path, text: str = "", **plugins: str) -> Plugins:
    return load_plugins(configured(folder, text, **plugins), ["frontend"])


def complaint(folder: Path, text: str = "", **plugins: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, **plugins)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def use(*names: str) -> str:
    return f'[plugins]\npath = ["site"]\nuse = {list(names)}\n'


def test_the_operators_list_is_asked_first_to_last(tmp_path: Path) -> None:
    plugins = loaded(
        tmp_path,
        use("place_one", "place_two"),
        place_one=PLACE.format(server="one", prefix="user.a"),
        place_two=PLACE.format(server="two", prefix="user"),
    )
    assert plugins.choose_backend(ANYTHING, LOADS) == Location("one")
    other = NewMailbox(MailboxName(b"user.b"), "b", "b", None)
    assert plugins.choose_backend(other, LOADS) == Location("two")
    nowhere = NewMailbox(MailboxName(b"shared"), None, "b", None)
    assert plugins.choose_backend(nowhere, LOADS) is None
    assert plugins.names[:2] == ("place_one", "place_two")


def test_the_bundled_policies_place_and_refer(tmp_path: Path) -> None:
    plugins = loaded(tmp_path)
    assert plugins.choose_backend(ANYTHING, LOADS) == Location("be1")
    parent = MailboxEntry(MailboxName(b"user.a"), EntryState.ACTIVE, b"be3!default")
    child = NewMailbox(MailboxName(b"user.a.x"), "a", "a", parent)
    assert plugins.choose_backend(child, LOADS) == Location("be3")
    question = ReferralQuestion("SELECT", parent, "a", False, referrals_on=False, peer="")
    assert plugins.relay_or_refer(question) is Conduct.RELAY
    able = ReferralQuestion("SELECT", parent, "a", False, referrals_on=True, peer="")
    assert plugins.relay_or_refer(able) is Conduct.REFER
    assert not plugins.refers_logins()
    assert not plugins.refers_unable()


def test_a_plugin_that_says_nothing_may_refer_anybody(tmp_path: Path) -> None:
    source = """
from murder.api import Conduct, hookimpl

@hookimpl
def relay_or_refer(question):
    return Conduct.REFER
"""
    assert loaded(tmp_path, use("own", "referral_when_able"), own=source).refers_unable()
    spared = (
        source
        + """

@hookimpl
def refers_unable(settings):
    return False
"""
    )
    folder = tmp_path / "spared"
    folder.mkdir()
    assert not loaded(folder, use("own", "referral_when_able"), own=spared).refers_unable()


def test_a_site_may_never_refer(tmp_path: Path) -> None:
    plugins = loaded(tmp_path, '[plugins]\nuse = ["referral_never", "referral_when_able"]')
    entry = MailboxEntry(MailboxName(b"user.a"), EntryState.ACTIVE, b"be3!default")
    able = ReferralQuestion("SELECT", entry, "a", False, referrals_on=True, peer="")
    assert plugins.relay_or_refer(able) is Conduct.RELAY


def test_a_plugin_gets_its_own_settings(tmp_path: Path) -> None:
    source = """
from dataclasses import dataclass
from murder.api import hookimpl
from murder.model.entry import Location

@dataclass(frozen=True, slots=True)
class Settings:
    server: str = "nowhere"

@hookimpl
def choose_backend(settings, mailbox):
    return Location(settings.server)
"""
    text = use("place_here") + '[plugins.place_here]\nserver = "here"\n'
    plugins = loaded(tmp_path, text, place_here=source)
    assert plugins.choose_backend(ANYTHING, LOADS) == Location("here")


def test_a_sites_auth_backend_is_made(tmp_path: Path) -> None:
    plugins = loaded(tmp_path, '[auth]\nplugin = "auth_all"', auth_all=AUTH)
    assert [type(one).__name__ for _, one in plugins.auth_backends()] == ["Everybody"]


def test_a_name_that_no_plugin_has_is_told_with_the_nearest(tmp_path: Path) -> None:
    said = complaint(tmp_path, use("placement_emtiest"))
    assert (
        "plugins.use: 'placement_emtiest': unknown plugin; did you mean `placement_emptiest`?"
        in said
    )
    assert "auth.plugin: 'auth_radius'" in complaint(tmp_path, '[auth]\nplugin = "auth_radius"')
    assert "plugins.auth_fil: unknown" in complaint(tmp_path, "[plugins.auth_fil]\nx = 1")


def test_a_misspelt_hook_stops_the_start(tmp_path: Path) -> None:
    source = "from murder.api import hookimpl\n@hookimpl\ndef chose_backend(mailbox): return None\n"
    said = complaint(tmp_path, use("place_bad"), place_bad=source)
    assert "plugin place_bad: `chose_backend`: unknown hook; did you mean `choose_backend`?" in said


def test_a_wrong_argument_stops_the_start(tmp_path: Path) -> None:
    source = "from murder.api import hookimpl\n@hookimpl\ndef choose_backend(mailbx): return None\n"
    said = complaint(tmp_path, use("place_bad"), place_bad=source)
    assert "place_bad" in said
    assert "mailbx" in said


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero (line 1 of "),
        ("\ndef broken(:\n", "SyntaxError: invalid syntax (line 2 of "),
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def choose_backend(mailbox): return None\n", "has no hook"),
    ],
)
def test_a_plugin_that_does_not_load_is_told_with_its_file(
    tmp_path: Path, source: str, says: str
) -> None:
    said = complaint(tmp_path, use("place_bad"), place_bad=source)
    assert says in said
    assert str(tmp_path / "site" / "place_bad.py") in said


def test_two_plugins_for_one_job_stop_the_start(tmp_path: Path) -> None:
    said = complaint(tmp_path, use("auth_all"), auth_all=AUTH)
    assert "auth.plugin: auth_file and auth_all ([plugins] use) claim the same job" in said


def test_a_plugin_without_the_hook_its_key_needs_is_told(tmp_path: Path) -> None:
    said = complaint(tmp_path, '[auth]\nplugin = "referral_never"')
    assert "plugin referral_never has no hook make_auth_backend" in said


def test_two_files_with_one_name_are_told(tmp_path: Path) -> None:
    assert "have one name" in complaint(tmp_path, auth_file=AUTH)


def test_bad_settings_are_told_as_keys_of_the_file(tmp_path: Path) -> None:
    assert "plugins.auth_file.log2_cots: unknown key; did you mean `log2_cost`?" in complaint(
        tmp_path, "[plugins.auth_file]\nlog2_cots = 1"
    )
    assert "log2_cost must be between 1 and 20" in complaint(
        tmp_path, "[plugins.auth_file]\nlog2_cost = 99"
    )
    assert "takes no settings" in complaint(tmp_path, "[plugins.referral_when_able]\nx = 1")


def test_what_a_maker_raises_or_forgets_is_told(tmp_path: Path) -> None:
    raising = AUTH.replace("return Everybody()", "raise OSError('no disk')")
    config = configured(tmp_path, '[auth]\nplugin = "auth_all"', auth_all=raising)
    with pytest.raises(ConfigError, match=r"auth\.plugin: auth_all: no disk"):
        load_plugins(config, ["frontend"]).auth_backends()
    config = configured(
        tmp_path, '[auth]\nplugin = "auth_all"', auth_all=AUTH.replace("verify", "check")
    )
    with pytest.raises(ConfigError, match="has no verify"):
        load_plugins(config, ["frontend"]).auth_backends()


def test_the_bundled_plugins_are_named_by_their_kind() -> None:
    names = {found.name for found in bundled_plugins()}
    assert {"auth_file", "placement_emptiest", "placement_with_parent", "referral_never"} <= names
    kinds = {"auth", "list", "store", "placement", "referral", "sasl"}
    assert all(name.split("_")[0] in kinds for name in names)


LIFE = """
from murder.api import hookimpl

def note(text):
    with open("{file}", "a") as file:
        file.write(text + chr(10))

@hookimpl
{asynchronous}def role_starts(role, worker):
    {fault}
    note(f"{name} starts {{role}} {{worker}}")

@hookimpl
def role_stops(role):
    note(f"{name} stops {{role}}")
    {end}
"""


def life(folder: Path, name: str, asynchronous: str = "", fault: str = "", end: str = "") -> str:
    file = folder / "told"
    return LIFE.format(file=file, name=name, asynchronous=asynchronous, fault=fault, end=end)


async def test_plugins_are_told_of_start_and_stop_in_order(tmp_path: Path) -> None:
    plugins = loaded(
        tmp_path,
        use("life_a", "life_b"),
        life_a=life(tmp_path, "a", "async "),
        life_b=life(tmp_path, "b"),
    )

    await plugins.role_starts("frontend", 1)
    assert await plugins.role_stops("backend", 1) == []  # not that one
    assert await plugins.role_stops("frontend", 1) == []
    assert await plugins.role_stops("frontend", 1) == []  # once
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [
        "a starts frontend 1",
        "b starts frontend 1",
        "b stops frontend",
        "a stops frontend",
    ]


def test_a_plugin_that_does_not_start_ends_the_start(tmp_path: Path) -> None:
    plugins = loaded(
        tmp_path,
        use("life_a", "life_b", "life_c"),
        life_a=life(tmp_path, "a"),
        life_b=life(tmp_path, "b", fault="raise OSError('no way')"),
        life_c=life(tmp_path, "c"),
    )
    with pytest.raises(ConfigError) as caught:
        asyncio.run(plugins.role_starts("frontend", 0))
    assert "plugins.use: life_b: role_starts failed: OSError: no way (line" in str(caught.value)
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["a starts frontend 0", "a stops frontend"]


async def test_a_plugin_that_fails_at_the_stop_keeps_no_other_from_it(tmp_path: Path) -> None:
    plugins = loaded(
        tmp_path,
        use("life_a", "life_b"),
        life_a=life(tmp_path, "a"),
        life_b=life(tmp_path, "b", end="1 / 0"),
    )

    await plugins.role_starts("frontend", 0)
    ((name, error),) = await plugins.role_stops("frontend", 0)
    assert (name, type(error)) == ("life_b", ZeroDivisionError)
    assert (tmp_path / "told").read_text().splitlines()[-2:] == [
        "b stops frontend",
        "a stops frontend",
    ]
