"""Who somebody is, proven, and as whom they are in."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, proven. `user` is the canonical user id: what mailbox names are made from."""

    user: str
    groups: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who is in. `proxy` names the node or proxy user that vouches for him, "" if he came himself.

    `password` is kept only where it must be carried on (an administrator at a frontend). `detail` is what he wrote behind
    his name with a `+`: the mailbox that POP3 opens.
    """

    user: str
    identity: Identity
    is_admin: bool = False
    proxy: str = ""
    password: bytes | None = field(default=None, repr=False)
    detail: str = ""
