"""`murder ca`: the cluster's own certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.admin.cli.options import (
    PATH,
    Decorator,
    Group,
    json_option,
    print_json,
    print_table,
    say,
)
from murder.config import UNIFIED, parts_of
from murder.pki.authority import (
    CA_DAYS,
    EXPIRES_SOON_DAYS,
    NODE_DAYS,
    NODE_ROLES,
    OPERATOR_DAYS,
    init_authority,
    issue,
    serial_text,
)
from murder.pki.trust import Noted, init_list, list_issued, revoke

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
    murder ca list
    murder ca revoke anna-admin

    Copy ca.pem, crl.pem, NAME.pem and NAME.key to the node; ca.key stays.
    """


@ca.command()
@folder_option()
@click.option("--days", type=click.IntRange(1), default=CA_DAYS, show_default=True)
@json_option("certificate, key, crl")
def init(folder: Path, days: int, as_json: bool) -> int:
    """Create the authority: ca.pem and crl.pem (the revocation list, still empty) for every node, and ca.key, which
    signs.

    \b
    murder ca init
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = init_authority(folder, days=days)
    crl = init_list(folder, datetime.now(UTC))
    if as_json:
        print_json({"certificate": str(made.certificate), "key": str(made.key), "crl": str(crl)})
    else:
        click.echo(f"{made.certificate}, {crl} (to every node), {made.key} (stays here, secret)")
    return 0


@ca.command("issue")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([*NODE_ROLES, UNIFIED]),
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
@click.option(
    "--days",
    type=click.IntRange(1),
    default=None,
    help=f"How long it is valid.  [default: {NODE_DAYS}; of an operator {OPERATOR_DAYS}]",
)
@json_option("certificate, key, expires")
def issue_certificate(
    name: str,
    roles: tuple[str, ...],
    addresses: tuple[str, ...],
    folder: Path,
    out: Path | None,
    days: int | None,
    as_json: bool,
) -> int:
    """Sign a certificate for the node NAME (its full host name, as node.name has it).

    Again for the same NAME renews it: copy the files, and `murder reload` there.

    \b
    murder ca issue be1.example.org --role backend
    murder ca issue mx.example.org --role mupdate --role frontend
    murder ca issue n1.example.org --role unified    # frontend and backend
    murder ca issue fe1.example.org --role frontend --address imap.example.org
    murder ca issue anna-admin --role operator
    """
    made = issue(folder, name, parts_of(roles), addresses=addresses, days=days, out=out)
    if as_json:
        files = {"certificate": str(made.certificate), "key": str(made.key)}
        print_json({**files, "expires": made.expires.isoformat()})
    else:
        click.echo(f"{made.certificate}, {made.key} (until {made.expires.date()})")
    return 0


@ca.command("list")
@folder_option()
@json_option("a list of serial, name, roles, until, state (valid, ending, expired or revoked)")
def list_certificates(folder: Path, as_json: bool) -> int:
    """Show what the authority has signed: serial number, name, roles, until when, and whether it is valid.

    \b
    murder ca list
    murder ca list --json | jq '.[] | select(.state == "ending")'
    """
    now = datetime.now(UTC)
    rows = [
        {
            "serial": serial_text(certificate.serial),
            "name": certificate.name,
            "roles": list(certificate.roles),
            "until": certificate.until.isoformat(),
            "state": _state(certificate, now),
        }
        for certificate in list_issued(folder)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("name", "roles", "until", "state", "serial"),
            [
                [
                    str(row["name"]),
                    ",".join(row["roles"]),
                    str(row["until"])[:10],
                    str(row["state"]),
                    str(row["serial"]),
                ]
                for row in rows
            ],
            hosts=("name",),
            empty="Nothing was issued",
        )
    return 0


def _state(certificate: Noted, now: datetime) -> str:
    if certificate.is_revoked:
        return "revoked"
    if certificate.until < now:
        return "expired"
    return "ending" if certificate.until < now + timedelta(days=EXPIRES_SOON_DAYS) else "valid"


@ca.command("revoke")
@click.argument("whom", metavar="NAME|SERIAL")
@folder_option()
@json_option("crl, revoked (a list of serial, name)")
def revoke_certificate(whom: str, folder: Path, as_json: bool) -> int:
    """Revoke certificates: all of NAME that are valid, or the one with that SERIAL number. Writes crl.pem.

    It takes effect where it arrives: copy crl.pem to every node, named there by `crl` in [tls], and `murder reload`.
    To give the name another certificate, `issue` it after this.

    \b
    murder ca revoke anna-admin
    murder ca revoke 5D2F0C66A1…
    """
    file, revoked = revoke(folder, whom, datetime.now(UTC))
    rows = [
        {"serial": serial_text(certificate.serial), "name": certificate.name}
        for certificate in revoked
    ]
    names = ", ".join(f"{row['name']} {row['serial']}".strip() for row in rows)
    text = (
        f"revoked: {names}" if rows else "no certificate of it is valid any more: nothing to revoke"
    )
    how = f'{file} goes to every node ([tls] crl = "{file.name}"), then `murder reload` there'
    return say(as_json, {"crl": str(file), "revoked": rows}, f"{text}\n{how}")
