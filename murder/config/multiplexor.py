"""The section `[frontend.multiplexor]`: how a whole session becomes one pipe to one server."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, not a shared value)

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from murder.config.value import option

Finds = Literal["host", "table", "list", "hash"]


@dataclass(frozen=True, slots=True)
class MultiplexorConfig:
    """With `frontend.mode = "multiplexor"`: to which server a user's session is passed on, and how it is entered there. See
    `murder help multiplexor`."""

    find: tuple[Finds, ...] = option(
        ("host", "table", "list"),
        "Where the server of a user is looked for, first to last: `host` is what the auth plugin says, `table` the file "
        "below, `list` where their INBOX is by the mailbox list, `hash` one of `hash_servers` by the user's name.",
    )
    table: Path | None = option(
        None,
        "A line for each user in the form of Perdition's popmap: `user:server`, `user:name@server:port`; `@domain:server` "
        "is for all of a domain. Read again at a reload.",
        example='"popmap"',
        must_exist=True,
    )
    table_regex: Path | None = option(
        None,
        "Lines `expression: server` in the form of Perdition's popmap.re, for who is not in `table`; the first that matches "
        "counts. Where a server's name is made of the user's ($1), only one that [servers] has. Read again at a reload.",
        example='"popmap.re"',
        must_exist=True,
    )
    hash_servers: tuple[str, ...] = option(
        (),
        "Servers over which `hash` spreads users; one more or less moves only the users that it gets or had.",
        example='["imap1.example.org", "imap2.example.org"]',
    )
    login: Literal["proxy", "password", "through"] = option(
        "proxy",
        "How a session is entered there: `proxy` as upstream_auth says, for the user; `password` with the user's own "
        "password, which the auth plugins have checked; `through` with the user's own, which only the server there checks "
        "(no auth plugin is asked).",
    )
    tells_client: bool = option(
        True,
        "Tell servers the client's address and session: in ID (IMAP), by XCLIENT (POP3 and ManageSieve) where they take it.",
    )
    shared: Literal["visible", "own"] = option(
        "visible",
        "Who is in the mailbox list is served by commands, as with `murder`, where one server does not have all that they "
        "may see; `own`: all of their own mailboxes.",
    )
