"""The section [auth]: who users are, and what wrong passwords cost."""

from dataclasses import dataclass
from typing import Literal

from murder.config.value import Network, option


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who users are."""

    plugin: str = option("auth_file", "The plugin that checks passwords.")
    plugins: tuple[str, ...] = option(
        (),
        "Several, in place of `plugin`: asked first to last, and the first that knows the user decides. One that cannot be "
        'asked now ends it with "try again later", so put those that are always there first.',
        example='["auth_file", "auth_ldap"]',
    )
    remember_s: float = option(
        60.0,
        "How long a right password is known again without asking a plugin, also where the directory has another by now. "
        "`murder auth flush HOST` ends it at once. 0: never.",
        least=0,
    )
    certificate_user: Literal["email", "cn", "uid", "dns"] = option(
        "email",
        "Where a user's certificate has the user id: the first address, the common name, the UID, or the first DNS name; "
        "without its @domain unless `[namespace] domains`. Plugins that know certificates are asked first.",
    )
    masters: tuple[str, ...] = option(
        (),
        "Users who may log in as others, but administrators, with their own password: as `user*master`, or by SASL's "
        "authorization identity. Not as who is disabled, or is nowhere. Each such login is in the log (login.by_master).",
        example='["helpdesk"]',
    )
    max_groups: int = option(
        1000,
        "Groups that a user may be in. Whom a plugin puts into more is not let in, and the log has their name: each command "
        "looks all of them up in access lists.",
        least=1,
    )
    failure_delay_s: float = option(
        2.0,
        "A wrong password is answered this much later, the next one for the same user from the same address twice as "
        "late, and so on; others do not wait. 0: never, and nothing is counted.",
        least=0,
    )
    max_failure_delay_s: float = option(
        15.0,
        "The longest such wait. A right password of that user, or a minute of peace, ends it.",
        least=0,
    )
    max_guesses_per_address: int = option(
        30,
        "Different wrong passwords from one address, over all its users, before attempts from there wait in line; one "
        "more is free every 10 s (at 30). Users who have got in from there within a day are not held up. 0: no limit.",
        least=0,
    )
    trusted: tuple[Network, ...] = option(
        (),
        "Networks that never wait so, and that `max_connections_per_address` does not bind: a webmail, through which all "
        "users come from one address.",
        example='["192.0.2.10"]',
    )
    client_address_from: tuple[Network, ...] = option(
        (),
        "Proxies of other makers before this node, as Dovecot, which are believed when they tell a client's address before "
        "its login: in ID (IMAP), by XCLIENT (POP3 and ManageSieve). The log and all that wrong passwords cost then go by "
        "that address. Nodes of the murder are believed without.",
        example='["192.0.2.20"]',
    )
    max_failures: int = option(5, "Wrong passwords after which the connection is closed.", least=1)
    timeout_s: float = option(15.0, "Waiting for the plugin.", least=0.01)
