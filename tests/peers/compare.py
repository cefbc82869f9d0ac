"""The same commands to this backend, to Cyrus and to Dovecot; where the two agree and we do not is a fault of ours.

    python -m tests.peers.compare [--all] [--cyrus HOST:PORT] [--dovecot HOST:PORT] [GROUP ...]

It starts a backend of this source and a Dovecot by itself; Cyrus is that of `tests/cyrus/lab.sh` (be1), if it runs.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.peers import groups, questions
from tests.peers.client import Client
from tests.peers.dovecot import running_dovecot
from tests.rooms.backend.server import memory_store, running_backend


@contextmanager
def our_backend(folder: Path, user: str) -> Iterator[tuple[str, int]]:
    """A backend of this source in a thread."""
    address: list[tuple[str, int]] = []
    ready, over = threading.Event(), []

    async def serve() -> None:
        async with running_backend(folder, memory_store, [user]) as running:
            address.append(running.address)
            stop = asyncio.Event()
            over.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(20)
    try:
        yield address[0]
    finally:
        loop, stop = over[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--all",
        action="store_true",
        help="also tell where Cyrus and Dovecot differ, and where we differ on purpose",
    )
    parser.add_argument("--cyrus", default="127.0.0.11:143")
    parser.add_argument("--dovecot-port", type=int, default=10143)
    parser.add_argument("groups", nargs="*", default=list(groups.GROUPS))
    given = parser.parse_args()
    user = "user1"
    faults = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        places = {"ours": stack.enter_context(our_backend(folder / "ours", user))}
        host, _, port = given.cyrus.partition(":")
        make_cyrus_user(host, int(port), user)
        places["cyrus"] = (host, int(port))
        places["dovecot"] = stack.enter_context(
            running_dovecot(folder / "dovecot", given.dovecot_port)
        )
        for name in given.groups:
            clients = [Client(one, *place, user, "secret") for one, place in places.items()]
            faults += run_group(groups.GROUPS[name], name, clients, tell_all=given.all)
            for client in clients:
                client.close()
    print(f"{faults} faults")
    return 1 if faults else 0


def make_cyrus_user(host: str, port: int, user: str) -> None:
    admin = Client("cyrus", host, port, "cyrus", "secret")
    admin.command(b"SETACL user/%s cyrus lrswipkxtea" % user.encode())
    admin.command(b"DELETE user/%s" % user.encode())
    admin.must(b"CREATE user/%s" % user.encode())
    admin.close()


def run_group(
    group: Callable[[Client], Iterator[tuple[str, Any]]],
    name: str,
    clients: list[Client],
    *,
    tell_all: bool,
) -> int:
    """Run it at each server, and compare what it found there under each key. How many faults."""
    results: list[dict[str, Any]] = [dict(group(client)) for client in clients]
    ours, *others = results
    faults = 0
    for key, value in ours.items():
        theirs = [other.get(key, groups.MISSING) for other in others]
        known = [one for one in theirs if one is not groups.MISSING]
        if value is groups.MISSING or all(one == value for one in known):
            continue
        if not tell_all and any(mark in key for mark in questions.OUR_WAY):
            continue
        agreed = len(known) > 1 and all(one == known[0] for one in known)
        if not agreed and not tell_all:
            continue
        if not agreed and value in known and not tell_all:
            continue
        faults += agreed
        print(f"--- {name}: {key}" + ("" if agreed else "  (they differ)"))
        for client, one in zip(clients, [value, *theirs], strict=True):
            print(f"    {client.name:8} {one!r}"[:1500])
    return faults


if __name__ == "__main__":
    sys.exit(main())
