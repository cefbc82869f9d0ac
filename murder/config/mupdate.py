"""Every key of `[mupdate]`: the mailbox list, its master, and what one server may put there. As `config.sections`."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, no shared value)

from dataclasses import dataclass
from typing import Literal

from murder.config.value import MIB, Endpoint, UpstreamAuth, option
from murder.model.protocol import MUPDATE


@dataclass(frozen=True, slots=True)
class MupdateConfig:
    """The mailbox list: the master itself, and how the others reach it."""

    listen: tuple[Endpoint, ...] = option(
        (), "Master: where it listens.", example='["*:3905"]', default_port=MUPDATE.keys[0].port
    )
    engine: str = option(
        "embedded",
        "Master: what keeps the list. `embedded` is a file of this one master; `etcd` is a log that several masters share: "
        "[plugins.list_etcd] says where, `murder help masters` how.",
    )
    master: Endpoint | None = option(
        None,
        "Frontends and backends: the master's host:port; a list where several masters share one list of mailboxes. A node "
        "that is a master itself needs it only for the others beside it.",
        example='"mupdate.example.org:3905"',
        default_port=MUPDATE.keys[0].port,
        several=True,
    )
    master_auth: UpstreamAuth = option(
        "external",
        "How this node proves itself to the master: `external` is its certificate; `plain` is a password "
        "(a Cyrus master); `gssapi` is a Kerberos ticket for mupdate/HOST, by node.keytab.",
    )
    master_user: str = option(
        "", "With `plain`: the user; with `gssapi`: the principal, empty: the keytab's first."
    )
    master_password: str = option("", "With `plain`: the password.", secret=True)
    master_tls: Literal["starttls", "none"] = option(
        "starttls", "`none` speaks to the master without TLS: only on a trusted wire."
    )
    ownership: Literal["owner", "last-writer"] = option(
        "owner",
        "Master: `owner` refuses changes to what is active at another server; `last-writer` does as "
        "Cyrus does.",
    )
    admins: tuple[str, ...] = option(
        (), "Master: users who may log in with a password and change everything."
    )
    users: tuple[str, ...] = option(
        (),
        "Master: users who may log in with a password as a node does (a Cyrus backend or frontend).",
    )
    allow_plaintext: bool = option(False, "Master: allow passwords on connections without TLS.")
    connect_timeout_s: float = option(5.0, "Waiting for a connection to the master.", least=0.01)
    command_timeout_s: float = option(30.0, "Waiting for the master's answer.", least=0.01)
    failover_s: float = option(
        0.5,
        "With several masters: silence of one after which it is asked whether it is there; after as much again without "
        "an answer the next one is called.",
        least=0.5,
    )
    login_timeout_s: float = option(60.0, "Master: how long a peer may take to log in.", least=0.01)
    idle_timeout_s: float = option(
        0.0, "Master: silence after which a connection is closed; 0: never.", least=0
    )
    ping_interval_s: float = option(
        20.0, "How often a replica asks a silent master whether it is there.", least=0.01
    )
    retry_min_s: float = option(
        0.2, "First pause before a lost master is called again.", least=0.01
    )
    retry_max_s: float = option(15.0, "Longest such pause; pauses double, with jitter.", least=0.01)
    missing_grace_s: float = option(
        600.0,
        "Frontends: so long after a master with another history came without mailboxes that the list had (its disk was "
        "lost, or an older list put back), a name that is not there is `try again later` (LMTP 451), not unknown: the "
        "backends are announcing theirs. 0: never.",
        least=0,
    )
    max_connections: int = option(2000, "Master: connections at once.", least=1)
    max_strangers_per_address: int = option(
        1000,
        "Master: of those from one address, so many who have not logged in; 0: no limit.",
        least=0,
    )
    max_connections_per_node: int = option(
        100,
        "Master: connections at once with one certificate, a node's or an operator's; 0: no limit. A backend has one for "
        "each worker.",
        least=0,
    )
    max_line_bytes: int = option(8192, "Longest line a peer may send.", least=512)
    max_literal_bytes: int = option(
        256 * 1024, "Longest literal: an access list with thousands of names.", least=1024
    )
    max_acl_bytes: int = option(
        128 * 1024, "Master: longest access list. Administrators are not bound.", least=1024
    )
    max_acl_identifiers: int = option(
        5000,
        "Master: identifiers in one access list (backends: see backend.max_acl_identifiers); each is a line of the list's "
        "index. Administrators are not bound.",
        least=1,
    )
    max_mailboxes_per_server: int = option(
        5_000_000,
        "Master: mailboxes that one server may have in the list. Administrators are not bound.",
        least=1,
    )
    max_bytes_per_server: int = option(
        2048 * MIB,
        "Master: about so many octets of the list's file for one server's mailboxes; a million with five names each in "
        "their access lists take 700 MiB. Administrators are not bound.",
        least=MIB,
    )
    max_servers: int = option(
        1000,
        "Master: servers that may have mailboxes in the list. Administrators are not bound.",
        least=1,
    )
    max_stream_backlog_bytes: int = option(
        64 * MIB, "What may wait for a slow UPDATE peer before it is cut off.", least=64 * 1024
    )
    max_streams_bytes: int = option(
        16 * MIB,
        "What may wait for all MUPDATE peers together. Beyond it each gets its next page (128 KiB, or one access list) when "
        "it has taken the last; beyond twice as much who has taken nothing for longest is cut off.",
        least=MIB,
    )
    journal_bytes: int = option(
        8 * MIB,
        "Master: size of the file in which changes are durable before they are in the list's file. 0: they go straight "
        "there, which takes several times as long.",
    )
    max_list_bytes: int = option(
        16 * 1024 * MIB,
        "Largest size of the list's file (it is sparse). A master refuses what would make it larger.",
        least=16 * MIB,
    )
