"""The table [plugins.auth_ldap] of murder.toml."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from plugins.auth_ldap.connection import Server
from plugins.auth_ldap.filters import BadFilter, encode_filter, fill


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_ldap]. In filters and in `user_dn`: `%u` is the user as given, `%n` what is before the @, `%d`
    what is behind it, `%D` the name of the user's entry."""

    servers: tuple[str, ...] = field(
        default=("ldap://localhost",),
        metadata={"doc": "ldaps://host or ldap://host, with :port; the first that answers serves."},
    )
    starttls: bool = field(
        default=True,
        metadata={
            "doc": "TLS on ldap:// before anything is said. false: in plain text, passwords too."
        },
    )
    ca: Path | None = field(
        default=None,
        metadata={"doc": "The authority of the servers' certificates; empty: the system's."},
    )
    service_dn: str = field(
        default="", metadata={"doc": "Who searches; empty: nobody (anonymously)."}
    )
    service_password: str = field(
        default="", metadata={"doc": "The password of service_dn.", "secret": True}
    )
    base: str = field(default="", metadata={"doc": "Below which entry users are."})
    filter: str = field(
        default="(uid=%n)",
        metadata={"doc": "Finds a user's one entry. Active Directory: (sAMAccountName=%n)."},
    )
    user_dn: str = field(
        default="",
        metadata={
            "doc": "The name of a user's entry, to log in without a search: uid=%n,ou=people,dc=example,dc=org. Active "
            "Directory takes %n@example.org, too; their entry is then looked for in base, as the user."
        },
    )
    user: str = field(
        default="uid",
        metadata={"doc": "The attribute with the user id. Active Directory: sAMAccountName."},
    )
    with_domain: bool = field(
        default=False, metadata={"doc": "The user id gets the @domain that the user has given."}
    )
    addresses: str = field(default="mail", metadata={"doc": "The attribute with addresses."})
    name: str = field(default="cn", metadata={"doc": "The attribute with the name to be shown."})
    host: str = field(default="", metadata={"doc": "The attribute with the user's home server."})
    fields: tuple[str, ...] = field(
        default=(),
        metadata={"doc": "More attributes to be told on, as NAME=ATTRIBUTE: quota=mailQuota."},
    )
    address_filter: str = field(
        default="",
        metadata={"doc": "Finds who has an address of mail (LMTP): (mail=%u). Empty: not asked."},
    )
    member_of: str = field(
        default="",
        metadata={"doc": "The attribute of a user that names their groups: memberOf."},
    )
    group_base: str = field(
        default="", metadata={"doc": "Below which entry groups are; empty: not searched."}
    )
    group_filter: str = field(
        default="(member=%D)", metadata={"doc": "Finds the groups of a user, or of a group."}
    )
    group_name: str = field(default="cn", metadata={"doc": "The attribute with a group's name."})
    nested: bool = field(
        default=False, metadata={"doc": "Groups in groups count, too (needs group_base)."}
    )
    at_once: int = field(
        default=50, metadata={"doc": "Logins that ask at a time, in each process.", "least": 1}
    )
    timeout_s: float = field(default=8.0, metadata={"doc": "Waiting for an answer."})
    connect_timeout_s: float = field(default=4.0, metadata={"doc": "Waiting for a connection."})
    sick_s: float = field(
        default=30.0, metadata={"doc": "So long a server that failed is asked last."}
    )

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("servers must name one at least")
        for url in self.servers:
            self._server(url)
        if not self.base and not self.user_dn:
            raise ValueError("set base (to search users), or user_dn (to log in without)")
        if bool(self.service_dn) != bool(self.service_password):
            raise ValueError("service_dn and service_password go together")
        if self.user_dn and "%u" not in self.user_dn and "%n" not in self.user_dn:
            raise ValueError("user_dn must have %n or %u in it")
        for key in ("filter", "group_filter", "address_filter"):
            template = getattr(self, key)
            try:
                encode_filter(fill(template or "(uid=x)", "user@domain", "cn=x"))
            except BadFilter as error:
                raise ValueError(f"{key} = {template!r} is no filter of LDAP: {error}") from None
        for pair in self.fields:
            if "=" not in pair:
                raise ValueError(f"fields are NAME=ATTRIBUTE, not {pair!r}")

    def _server(self, url: str) -> Server:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("ldap", "ldaps")
            or not parts.hostname
            or parts.path not in ("", "/")
        ):
            raise ValueError(f"servers are ldap://host or ldaps://host, not {url!r}")
        is_tls = parts.scheme == "ldaps"
        port = parts.port or (636 if is_tls else 389)
        return Server(parts.hostname, port, is_tls, self.starttls and not is_tls)

    @property
    def binds_by_name(self) -> bool:
        """Whether `user_dn` is an entry's name, not what a user calls themselves."""
        return "=" in self.user_dn

    def all_servers(self) -> list[Server]:
        """As values, in order."""
        return [self._server(url) for url in self.servers]

    def wanted(self) -> list[str]:
        """The attributes of a user's entry that are asked for."""
        more = [pair.partition("=")[2] for pair in self.fields]
        names = [self.user, self.addresses, self.name, self.host, self.member_of, *more]
        return list(dict.fromkeys(name for name in names if name))
