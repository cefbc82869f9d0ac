"""`murder demo`: a whole murder on this host."""

import shlex
import shutil
from pathlib import Path
from typing import Final

import asyncclick as click

from murder.__main__ import archive_path
from murder.admin.cli.options import Group, json_option, print_json
from murder.admin.demo.plan import (
    ADMIN,
    HOST,
    PASSWORD,
    Node,
    Options,
    ca_file,
    last_port,
    members_of,
    operator_file,
    with_plugins,
)
from murder.admin.demo.process import VERBS
from murder.admin.demo.run import Demo, ask, run
from murder.model.protocol import METRICS, WEB, client_keys

FOLDER: Final = click.Path(file_okay=False, resolve_path=True, path_type=Path)
DEFAULT_FOLDER: Final = Path("murder-demo")
HA_NODES: Final = 3
MESSAGE: Final = "Subject: hello\\r\\n\\r\\nIt works.\\r\\n"


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
@click.option(
    "--dir",
    "folder",
    type=FOLDER,
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Where everything is kept: the next demo with it finds the mail of this one.",
)
@click.option("--backends", type=click.IntRange(1, 50), default=2, show_default=True)
@click.option("--frontends", type=click.IntRange(1, 50), default=1, show_default=True)
@click.option(
    "--unified",
    type=click.IntRange(0, 50),
    default=0,
    help="So many nodes (n1, n2 …) that are frontend and backend in one, n1 the master too, in place of all others.",
)
@click.option(
    "--ha",
    "is_ha",
    is_flag=True,
    help="No single point of failure: --unified (3, where it is not given) nodes that are masters, too, and an etcd of "
    "three members (etcd1 …) that keeps their list.",
)
@click.option("--users", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="Worker processes of each frontend and backend; 0: one for each processor.",
)
@click.option(
    "--port-base",
    type=click.IntRange(1, 65000),
    default=14300,
    show_default=True,
    help="The first port: the master's. Each frontend and then each backend takes those that follow.",
)
@json_option("host, dir, ports and configurations of all nodes")
@click.option(
    "--no-tls-required",
    is_flag=True,
    help="Take passwords without TLS on the plain IMAP, POP3 and MUPDATE ports.",
)
@click.option(
    "--plugin",
    "plugins",
    type=click.Path(exists=True, resolve_path=True, path_type=Path),
    multiple=True,
    help="A plugin of yours for all nodes: a file or the folder of a package. What it listens on gets ports; one of a kind "
    "that a key names (a store, say) is named there.",
)
async def demo(
    context: click.Context,
    folder: Path,
    backends: int,
    frontends: int,
    unified: int,
    is_ha: bool,
    users: int,
    workers: int,
    port_base: int,
    as_json: bool,
    no_tls_required: bool,
    plugins: tuple[Path, ...],
) -> int:
    """A whole murder on this host: master, frontends and backends as processes of their own, until Ctrl-C.

    Users are user1 … userN and the administrator admin, all with the password "secret"; their INBOXes are spread over
    the backends. Everything listens on 127.0.0.1. Ports count up from --port-base in this order: the MUPDATE master;
    then for fe1, fe2 … and after them be1, be2 …, each: PORT_KEYS.

    \b
    murder demo                                  # prints lines to paste
    murder demo --json --dir /tmp/m --users 200  # one line of JSON when ready
    murder demo node kill be1 --dir /tmp/m       # what if a backend dies?
    murder demo node start be1 --dir /tmp/m
    murder demo --ha                             # three machines; any may die
    """
    if context.invoked_subcommand is not None:
        return 0
    options = Options(
        folder=folder,
        backends=backends,
        frontends=frontends,
        unified=unified or (HA_NODES if is_ha else 0),
        is_ha=is_ha,
        users=users,
        workers=workers,
        port_base=port_base,
        tls_required=not no_tls_required,
        plugins=plugins,
    )
    options = with_plugins(options)
    _check_ports(options)
    show = _show_json if as_json else _show
    await run(options, show, lambda text: click.echo(f"demo: {text}", err=True))
    return 0


demo.help = (demo.help or "").replace("PORT_KEYS", ", ".join(key.name for key in client_keys()))


def _check_ports(options: Options) -> None:
    last = last_port(options)
    if last > 65535:
        raise click.UsageError(f"--port-base {options.port_base} leaves no room up to port {last}")


@demo.command("node")
@click.argument("verb", type=click.Choice(list(VERBS)))
@click.argument("node")
@click.option("--dir", "folder", type=FOLDER, default=DEFAULT_FOLDER, show_default=True)
@json_option("node, pid, running")
async def act_on_node(verb: str, node: str, folder: Path, as_json: bool) -> int:
    """Stop, start, kill, freeze or thaw one NODE (mupdate, fe1, be1, n1, etcd1 …) of the demo that runs in --dir.

    Returns when it is done: after `start` the node serves, after `stop` and `kill` its processes are gone.

    \b
    murder demo node kill be1
    murder demo node start be1 --dir /tmp/m
    """
    answer = await ask(folder, verb, node)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{node}: {verb} done, pid {answer['pid']}")
    return 0


def _show_json(running: Demo) -> None:
    print_json(running.description())


def _show(running: Demo) -> None:
    """Where everything listens, and three lines to paste."""
    options = running.options
    plugged = [key.name for service in options.services for key in service.protocol.keys]
    keys = [*(key.name for key in client_keys()), *plugged]
    keys += ["mupdate", *running.nodes[0].pages]
    heads = f"{'':9}{'':24}" + "".join(f"{key:>{width(key)}}" for key in keys)
    click.echo(f"A murder on {HOST}, in {options.folder}\n\n{heads}")
    for node in running.nodes:
        own = {**node.ports, **node.pages}
        ports = "".join(f"{own.get(key, ''):>{width(key)}}" for key in keys)
        click.echo(f"{node.label:9}{node.name:24}{ports}")
    for member in members_of(options):
        click.echo(f"{member.label:9}etcd, for the masters   {member.port:>7}")
    plain = "" if options.tls_required else "; passwords also without TLS"
    click.echo(
        f"\nusers user1 … user{options.users}, administrator {ADMIN}, password {PASSWORD}{plain}"
        f"\ntrust {ca_file(options.folder)}\n\nPaste these, in another terminal:\n"
    )
    for line in paste_lines(options, running.nodes, with_curl=shutil.which("curl") is not None):
        click.echo(f"  {line}")
    master = running.nodes[0]
    program = shlex.quote(archive_path() or "murder")
    operator = shlex.quote(str(operator_file(options.folder)))
    click.echo(
        f"\nAnd look around:\n\n  export MURDER_CONFIG={operator}\n  {program} ctl status\n"
        f"\nIn a browser, at any node's port `web`, as {ADMIN} with {PASSWORD} (it warns of an authority that it does not\n"
        f"know: the demo's own); and a node's figures for Prometheus:\n"
        f"\n  https://{HOST}:{master.pages[WEB.name]}/\n  http://{HOST}:{master.pages[METRICS.name]}/metrics"
        "\n\nCtrl-C stops everything; the mail stays for the next run."
    )


def width(key: str) -> int:
    """Of its column."""
    return max(7, len(key) + 1)


def paste_lines(options: Options, nodes: list[Node], *, with_curl: bool) -> list[str]:
    """Deliver a message; read it; list the mailboxes of every backend. With Python alone where there is no curl."""
    frontend = next(node for node in nodes if node.has("frontend"))
    backends = [node.ports["imaps"] for node in nodes if node.has("backend")]
    ca = str(ca_file(options.folder))
    deliver = (
        f"import smtplib; smtplib.LMTP({HOST!r}, {frontend.ports['lmtp']}, 'localhost')"
        f".sendmail('me@example.org', ['user1'], '{MESSAGE}')"
    )
    lines = ["python3 -c " + _in_double_quotes(deliver)]
    if with_curl:
        curl = f"curl -s --cacert {shlex.quote(ca)}"
        imaps = f"imaps://{HOST}"
        lines += [
            f"{curl} -u user1:{PASSWORD} '{imaps}:{frontend.ports['imaps']}/INBOX;MAILINDEX=1'",
            f"for port in {' '.join(map(str, backends))}; do "
            f'{curl} -u {ADMIN}:{PASSWORD} "{imaps}:$port/" -X \'LIST "" "user/*"\'; done',
        ]
        return lines
    start = f"import imaplib, ssl; c = ssl.create_default_context(cafile={ca!r}); "
    read = (
        f"i = imaplib.IMAP4_SSL({HOST!r}, {frontend.ports['imaps']}, ssl_context=c); "
        f"i.login('user1', {PASSWORD!r}); i.select(); print(i.fetch('1', 'BODY[]')[1][0][1].decode())"
    )
    listing = (
        f"ii = [imaplib.IMAP4_SSL({HOST!r}, p, ssl_context=c) for p in {backends}]; "
        f"[print(i.login({ADMIN!r}, {PASSWORD!r}) and i.list(pattern='user/*')) for i in ii]"
    )
    return [*lines, *("python3 -c " + _in_double_quotes(start + code) for code in (read, listing))]


def _in_double_quotes(code: str) -> str:
    """A line of Python for a shell: its own strings use single quotes."""
    return '"' + "".join("\\" + c if c in '\\"$`' else c for c in code) + '"'
