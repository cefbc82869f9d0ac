"""The topics of the manual, in the order in which somebody new would read them, and how to write plugins among them."""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

# What each answers.
TOPICS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "trouble": "Something is wrong: what you see, and what to do about it.",
        "install": "Install it on three hosts.",
        "unified": "Every machine does everything: frontend and backend in one.",
        "logins": "Who your users are: LDAP, saslauthd, OAuth, Kerberos, PAM, a script; application passwords.",
        "daily": "Every day: users, mailboxes, moves, limits, with `murder ctl`.",
        "filters": "Mail filters (Sieve): users', the site's own, programs such as spam learners.",
        "backup": "Points in time, one user back, and the disk lost at 3 a.m.",
        "web": "In a browser: the page for operators.",
        "keys": "A key was stolen, a laptop is lost.",
        "masters": "Several masters that share one list, on etcd: setting it up, and what to do when a member fails.",
        "cyrus": "Beside a Cyrus Murder, and in its place, node by node.",
        "maildir": "Mail that is there already, as Maildir++.",
        "multiplexor": "Before servers that are no murder: a whole session to one server.",
        "dns": "Names of users in DNS, which lead to their servers.",
        "scope": "What it does not do, or not yet.",
        "costs": "What it costs beside other proxies.",
        "plugins": "Logins, stores, placement, protocols of your own.",
        "upgrade": "To another version: which stand beside each other, in what order, and back.",
        "changes": "What has changed since earlier versions.",
    }
)


def page(topic: str) -> str:
    """The text of a topic, as Markdown. Raises KeyError."""
    TOPICS[topic]
    if topic == "plugins":
        return (files("plugins") / "README.md").read_text(encoding="utf-8")
    return (files("murder.admin.manual") / f"{topic}.md").read_text(encoding="utf-8")
