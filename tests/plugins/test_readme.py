"""plugins/README.md tells a plugin's author of everything that the api has."""

import inspect
import re
from pathlib import Path

from murder.api import store

README = Path(__file__).parents[2] / "plugins" / "README.md"
REQUIRED = {"Incoming", "Mailbox", "MailboxStore", "StoreListener", "Untold"}


def test_every_power_of_a_store_stands_in_the_readme() -> None:
    powers = {
        name
        for name, value in vars(store).items()
        if inspect.isclass(value)
        and value.__module__ == store.__name__
        and getattr(value, "_is_protocol", False)
    }
    rows = re.findall(r"^\| `(\w+)` \| (?:store|mailbox) \|", README.read_text("utf-8"), re.M)
    assert sorted(rows) == sorted(powers - REQUIRED)


def test_of_what_a_power_is_stands_there_too() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (store|mailbox) \|", README.read_text("utf-8"), re.M)
    for name, owner in rows:
        text = inspect.getdoc(getattr(store, name)) or ""
        assert ("A power of a `Mailbox`" in text) == (owner == "mailbox"), name
