"""Our own nodes beside the Cyrus lab, as processes of `murder serve`, and the rows that any MUPDATE server has."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.kit.engine import ENGINE, TIMEOUT_S, etcd_settings, is_shared
from tests.kit.peer import BlockingPeer
from tests.kit.process import Program, murder_command, run_murder
from tests.kit.programs.etcd import cluster
from tests.kit.toml import Sections, write_config

_STRING: Final = re.compile(rb'"([^"]*)"|\{(\d+)\+?\}\r\n')


def following(master: str, port: int = 3905) -> Mapping[str, object]:
    """The keys of [mupdate] at a node of this master."""
    return {
        "master": f"{master}:{port}",
        "master_auth": "plain",
        "master_user": "murder",
        "master_password": "secret",
        "master_tls": "none",
    }


@contextmanager
def our_node(
    folder: Path,
    name: str,
    host: str,
    port: int,
    master: tuple[str, int] | None = None,
    command: Sequence[str] = (),
    engine: Sections | None = None,
) -> Iterator[Path]:
    """A master of ours, or (with `master`) a replica that listens. The log is in `log`. `engine` is where it keeps the list,
    as `on_etcd` has it; that of the run (`kit.engine`) if not told otherwise."""
    listening = {
        "listen": [f"{host}:{port}"],
        "users": ["murder"],
        "admins": ["cyrus"],
        "allow_plaintext": True,
    }
    engine = engine or {}
    chosen = {**listening, **(following(*master) if master else {}), **engine.get("mupdate", {})}
    sections = {**engine, "mupdate": chosen}
    with serving(folder, name, "mupdate", sections, command=command) as node:
        node.until_open(host, port)
        yield folder


@contextmanager
def on_etcd(folder: Path) -> Iterator[Sections]:
    """Sections of a master that keeps its list there, on one member in this folder."""
    with cluster(folder, 1) as etcd:
        reached = {"endpoints": list(etcd.endpoints), "timeout_s": TIMEOUT_S}
        yield {"mupdate": {"engine": "etcd"}, "plugins.list_etcd": reached}


@contextmanager
def serving(
    folder: Path,
    name: str,
    role: str,
    sections: Sections,
    users: Sequence[str] = (),
    command: Sequence[str] = (),
) -> Iterator[Program]:
    """`murder serve` in a folder, once it is configured and `murder`, `cyrus` and the users have their password. Started
    again where it has been before, it is as it was."""
    config = folder / "murder.toml"
    if not config.exists():
        node = {"name": name, "data": "data", **sections.get("node", {})}
        more = {"plugins.auth_file": {"log2_cost": 8}}
        write_config(config, {**_on_engine(folder, role, sections), "node": node, **more})
        (folder / "data").mkdir(exist_ok=True)
        for user in ("murder", "cyrus", *users):
            run_murder("auth", "add", user, "--config", config, said="secret\n")
    words = [*(command or murder_command()), "serve", "--role", role, "--config", str(config)]
    with Program(words, folder / "log") as program:
        yield program


def _on_engine(folder: Path, role: str, sections: Sections) -> Sections:
    """A lone master on the engine of this run (`kit.engine`)."""
    mupdate = sections.get("mupdate", {})
    if not is_shared() or role != "mupdate" or not mupdate.keys().isdisjoint(("master", "engine")):
        return sections
    settings = etcd_settings(folder)
    table = {"endpoints": list(settings.endpoints), "prefix": settings.prefix}
    return {
        **sections,
        "mupdate": {**mupdate, "engine": ENGINE},
        "plugins.list_etcd": {**table, "timeout_s": settings.timeout_s},
    }


def rows_at(host: str, port: int = 3905) -> list[tuple[bytes, ...]]:
    """The whole list in the server's order, each row as (keyword, string, …)."""
    with BlockingPeer(host, port, 10) as peer:
        peer.until("* OK")
        response = b64encode(b"\0murder\0secret").decode()
        peer.ok(f'AUTHENTICATE "PLAIN" "{response}"')
        return [parsed(message) for message in peer.ok("LIST")]


def parsed(message: str) -> tuple[bytes, ...]:
    """Of a tagged line of data: its keyword, and its strings, quoted or literal."""
    octets = message.encode("utf-8", "surrogateescape")
    found, at = [octets.split(b" ")[1]], 0
    while (match := _STRING.search(octets, at)) is not None:
        end = match.end() + int(match[2] or 0)
        found.append(match[1] if match[2] is None else octets[match.end() : end])
        at = end
    return tuple(found)
