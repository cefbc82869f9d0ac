"""Who somebody is, proven, and as whom they are in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, proven. `user` is the canonical user id: what mailbox names are made from.

    `addresses` are theirs for mail, the main one first; `name` is for people to read. `host` is the server where they are at
    home, and where their first mailbox is made; "" where that is not known. `fields` are for whoever asks: a plugin's own
    facts by name; `quota` is what a new user may have, as `2G`, or `STORAGE=2G MESSAGE=100000`. What proves them ends at
    `expires_at` (seconds since 1970), None: it does not.
    """

    user: str
    groups: frozenset[str] = field(default_factory=frozenset)
    addresses: tuple[str, ...] = ()
    name: str = ""
    host: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    expires_at: float | None = None

    def until(self, expires_at: float | None) -> "Identity":
        """The same, for no longer than that: what else proves them ends then."""
        if expires_at is None or (self.expires_at is not None and self.expires_at <= expires_at):
            return self
        return replace(self, expires_at=expires_at)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who is in. `proxy` names the node or proxy user that vouches for them, "" if they came themselves.

    `password` is kept only where it must be carried on (an administrator at a frontend). `detail` is what they wrote behind
    their name with a `+`: the mailbox that POP3 opens. `master` is the master user who is in as `user`. `within`: they are
    in at the server that runs beside this proxy, and speak with that. `is_piped`: the proxy passes on whatever they say, so
    that nothing which only a proxy may say is to be believed.
    """

    user: str
    identity: Identity
    is_admin: bool = False
    proxy: str = ""
    password: bytes | None = field(default=None, repr=False)
    detail: str = ""
    master: str = ""
    within: bool = False
    is_piped: bool = False

    @property
    def by_proxy(self) -> bool:
        """Whether a proxy speaks here for them, in its own words."""
        return bool(self.proxy) and not self.is_piped
