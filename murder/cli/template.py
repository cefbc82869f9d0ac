"""What `murder plugin new` writes: a plugin of each kind that loads, passes its contract, and says what to change."""

import pkgutil
from typing import Final

from murder.hooks import BUNDLED_PACKAGE

HEAD: Final = '''"""@TITLE@

Use it: put this file's folder into murder.toml and name the plugin there:

    [plugins]
    path = ["/etc/murder/plugins"]
@USE@

Check it: murder plugin check @MODULE@.py
A plugin imports murder.api, murder.model and murder.errors, and nothing else of murder.
"""
'''

AUTH: Final = '''
import asyncio
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from murder.api import Identity, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    password: str = field(
        default="change me", metadata={"doc": "The one password.", "secret": True}
    )  # 1. Your own keys: server, timeout_s, base_dn ... A `secret` may be given as password_file too.


class @CLASS@:
    """Who users are. One object in each worker process, used by all its sessions."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir  # 2. Files of your own belong here.

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """The identity if the password is right, None if not or if there is no such user."""
        # 3. Ask your directory here. What waits must not hold up other sessions: await it, or leave it to a
        #    thread as below. Where the directory cannot be asked now, raise
        #    murder.errors.UpstreamFailure(UpstreamKind.CONNECT, "name of the server", "why"):
        #    the client then hears "try again later", not "wrong password".
        if await asyncio.to_thread(self._is_right, user, password):
            return Identity(user)  # 4. Identity(user, frozenset({"staff"})) for groups in access lists.
        return None

    async def lookup(self, user: str) -> Identity | None:
        """The identity of a user whom a frontend or a certificate vouches for; None if there is no such user."""
        return Identity(user) if user.startswith("test") else None

    def _is_right(self, user: str, password: bytes) -> bool:
        right = hmac.compare_digest(password, self.settings.password.encode())
        return right and user.startswith("test")


@hookimpl
def make_auth_backend(settings: Settings, data_dir: Path) -> @CLASS@:
    """Called once in each process, at the start."""
    return @CLASS@(settings, data_dir)
'''

PLACEMENT: Final = '''
from collections.abc import Sequence
from dataclasses import dataclass, field

from murder.api import BackendLoad, NewMailbox, hookimpl
from murder.model.entry import Location


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    server: str = field(
        default="be1.example.org", metadata={"doc": "The backend for users of the house."}
    )  # 1. Your own keys.


@hookimpl
def choose_backend(
    settings: Settings, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
) -> Location | None:
    """Where a new mailbox goes, or None to let the next plugin of `use` decide."""
    # 2. mailbox.name, .owner (None: shared), .user (who asks), .parent (an entry, or None) say what is to be placed.
    if mailbox.owner is None:
        return None
    # 3. Answer one of the candidates' locations, never a backend that is not reachable.
    for load in candidates:
        if load.location.server == settings.server and load.reachable:
            return load.location
    return None
'''

REFERRAL: Final = '''
from dataclasses import dataclass, field

from murder.api import Conduct, ReferralQuestion, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    network: str = field(
        default="10.1.", metadata={"doc": "Clients whose address begins so are referred."}
    )  # 1. Your own keys.


@hookimpl
def relay_or_refer(settings: Settings, question: ReferralQuestion) -> Conduct | None:
    """Relay a command, or send the client to the backend; None to let the next plugin of `use` decide."""
    # 2. question.command, .entry (the mailbox), .user, .is_admin, .peer (the client's address), and .referrals_on:
    #    whether the client has shown that it follows referrals. Hardly any other does.
    if not question.referrals_on:
        return Conduct.RELAY
    return Conduct.REFER if question.peer.startswith(settings.network) else None
'''

TITLES: Final = {
    "auth": "Authentication: who users are.",
    "store": "A mailbox store: where a backend keeps messages.",
    "placement": "Placement: on which backend a new mailbox is made.",
    "referral": "Referrals: which commands are relayed, which clients are sent to the backend.",
}
STORE_ADVICE: Final = """
# This is the reference store, complete and in memory. To keep mail elsewhere: 1. give make_store its Settings (a frozen
# dataclass of that name; its table is [plugins.@MODULE@]). 2. Put what `_Box` holds where it survives; a method that
# has returned must be durable. 3. Leave slow work to asyncio.to_thread. murder/api/store.py has the rules.
"""


def format_plugin(kind: str, name: str) -> str:
    """The text of a new plugin of that kind; its module is `<kind>_<name>`."""
    module = f"{kind}_{name}"
    use = {
        "auth": f'\n    [auth]\n    plugin = "{module}"',
        "store": f'\n    [backend]\n    store = "{module}"',
    }.get(kind, f'    use = ["{module}", …]  # before those that are there')
    body = {"auth": AUTH, "placement": PLACEMENT, "referral": REFERRAL}.get(kind) or _store()
    text = HEAD.replace("@TITLE@", TITLES[kind]).replace("@USE@", use) + body
    words = "".join(word.capitalize() for word in name.split("_"))
    return text.replace("@MODULE@", module).replace("@CLASS@", words + "Auth")


def _store() -> str:
    """The reference store, without its docstring."""
    source = (pkgutil.get_data(BUNDLED_PACKAGE, "store_memory.py") or b"").decode("utf-8")
    _docstring, _, rest = source.removeprefix('"""').partition('"""\n')
    return STORE_ADVICE + rest
