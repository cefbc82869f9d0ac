"""`murder ctl import`: mail from other servers and from Maildirs."""

import os
import sys
import time
from pathlib import Path

import asyncclick as click

from murder.admin.cli.ctl.reaching import ask_password, operator_options
from murder.admin.cli.options import json_option, print_json
from murder.admin.cli.screen import octets, seconds
from murder.admin.operate.bring import Brought, Import
from murder.admin.operate.reach import Reach
from murder.admin.operate.sources import source_of, trusting
from murder.errors import Code, Refusal
from murder.model.name import inbox_of


@click.command("import")
@operator_options
@click.argument("source")
@click.option("--user", required=True, help="Whose mailboxes it goes into; their INBOX exists.")
@click.option(
    "--proxy", default="", metavar="ADMIN", help="Log in there as this administrator, for USER."
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, path_type=Path),
    default=None,
    help="Holds the password there.",
)
@click.option(
    "--ca",
    "authority",
    type=click.Path(exists=True, path_type=Path),
    default=None,
    help="Trust certificates of this authority there, besides the system's and tls.ca.",
)
@click.option("--no-verify", is_flag=True, help="Trust any certificate there.")
@json_option("folders, messages, present, flags, octets")
async def import_mail(
    reach: Reach,
    source: str,
    user: str,
    proxy: str,
    password_file: Path | None,
    authority: Path | None,
    no_verify: bool,
    as_json: bool,
) -> int:
    """Import a user's mail from SOURCE: imaps://USER@HOST, imap://USER@HOST (STARTTLS), maildir:PATH; or
    imap+insecure://USER@HOST, without TLS.

    Folders, flags and dates come along. Run it again at any time: only what is new is brought, and flags set there are
    set here. The password is asked for, or read from --password-file or $MURDER_IMPORT_PASSWORD.

    \b
    murder ctl import imaps://anna@old.example.org --user anna
    murder ctl import imap://anna@cyrus1.example.org --proxy cyrus --user anna
    murder ctl import maildir:/home/anna/Maildir --user anna
    """

    def password(who: str) -> str:
        if password_file is not None:
            return password_file.read_text(encoding="utf-8").rstrip("\n")
        return os.environ.get("MURDER_IMPORT_PASSWORD") or ask_password(
            who, "--password-file FILE or $MURDER_IMPORT_PASSWORD"
        )

    began = time.monotonic()
    shown_at = 0.0

    def tell(brought: Brought) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if sys.stderr.isatty() and now - shown_at > 0.2:
            shown_at = now
            rate = octets(brought.octets / max(now - began, 0.001))
            click.echo(
                f"\r{brought.messages} messages, {octets(brought.octets)}, {rate}/s \x1b[K",
                nl=False,
                err=True,
            )

    authorities = [path for path in (reach.config.tls.ca, authority) if path is not None]
    if await reach.master.find(inbox_of(user)) is None:
        text = f"{user} has no INBOX here: `murder ctl user create {user}` makes it"
        raise Refusal(Code.NONEXISTENT, text)
    opened = source_of(source, password, trusting(authorities, not no_verify), proxy)
    try:
        brought = await Import(reach, user, opened, tell).run()
    finally:
        opened.close()
    passed = time.monotonic() - began
    if as_json:
        print_json(
            {
                "folders": brought.folders,
                "messages": brought.messages,
                "present": brought.present,
                "flags": brought.flags,
                "octets": brought.octets,
            }
        )
        return 0
    click.echo(
        f"{brought.messages} messages ({octets(brought.octets)}) in {brought.folders} folders brought in "
        f"{seconds(passed)}; {brought.present} were here already, flags of {brought.flags} updated"
    )
    return 0
