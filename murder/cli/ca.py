"""`murder ca`: the cluster's own certificates."""

from pathlib import Path
from typing import Final

import asyncclick as click

from murder.authority import CA_DAYS, NODE_DAYS, NODE_ROLES, init_authority, issue
from murder.cli.options import PATH, Decorator, Group, json_option, print_json

DEFAULT_FOLDER: Final = Path("murder-ca")


def folder_option() -> Decorator:
    """`--dir DIR`."""
    return click.option(
        "--dir",
        "folder",
        type=PATH,
        default=DEFAULT_FOLDER,
        show_default=True,
        help="Folder of ca.pem and ca.key. Keep it on one safe host.",
    )


@click.group(cls=Group)
def ca() -> None:
    """The cluster's own certificates: who may speak as a node of this murder, and in which role.

    \b
    murder ca init
    murder ca issue fe1.example.org --role frontend
    murder ca issue be1.example.org --role backend
    murder ca issue mupdate.example.org --role mupdate

    Copy ca.pem, NAME.pem and NAME.key to the node; ca.key stays.
    """


@ca.command()
@folder_option()
@click.option("--days", type=click.IntRange(1), default=CA_DAYS, show_default=True)
@json_option("certificate, key")
def init(folder: Path, days: int, as_json: bool) -> int:
    """Make the authority: ca.pem, for every node, and ca.key, which signs.

    \b
    murder ca init
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = init_authority(folder, days=days)
    if as_json:
        print_json({"certificate": str(made.certificate), "key": str(made.key)})
    else:
        click.echo(f"{made.certificate} (to every node), {made.key} (stays here, secret)")
    return 0


@ca.command("issue")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(NODE_ROLES),
    help="What the node may be; several times for several.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    help="A further host name or IP address by which it is reached.",
)
@folder_option()
@click.option(
    "--out", type=PATH, default=None, help="Where NAME.pem and NAME.key go; default: --dir."
)
@click.option("--days", type=click.IntRange(1), default=NODE_DAYS, show_default=True)
@json_option("certificate, key, expires")
def issue_certificate(
    name: str,
    roles: tuple[str, ...],
    addresses: tuple[str, ...],
    folder: Path,
    out: Path | None,
    days: int,
    as_json: bool,
) -> int:
    """Sign a certificate for the node NAME (its full host name, as node.name has it).

    Again for the same NAME renews it: copy the files and send the node SIGHUP.

    \b
    murder ca issue be1.example.org --role backend
    murder ca issue mx.example.org --role mupdate --role frontend
    murder ca issue fe1.example.org --role frontend --address imap.example.org
    murder ca issue anna-admin --role operator
    """
    made = issue(folder, name, roles, addresses=addresses, days=days, out=out)
    if as_json:
        shown = {"certificate": str(made.certificate), "key": str(made.key)}
        print_json({**shown, "expires": made.expires.isoformat()})
    else:
        click.echo(f"{made.certificate}, {made.key} (until {made.expires.date()})")
    return 0
