"""LMTP with users' scripts beside LMTP without: `build.py bench sieve [--turns N] [--seconds N] [--without cyrus]`.

A backend of ours, and in the same run Cyrus' (the lab's) and Dovecot's with Pigeonhole where they are. Ten users of each
have no script and ten one with twenty rules, put there by ManageSieve. In a turn each server has its go, without and with,
so that all meet the same disk and the same neighbours; figures are the medians of the turns, and so is the ratio.
"""

import argparse
import imaplib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench import backend
from tests.bench.backend import Peer
from tests.kit.managesieve import ManageSieve
from tests.load import dovecot, lmtp, mix
from tests.load.processes import cpu_s

CLIENTS: Final = 10
GOAL: Final = 0.7
SIEVE: Final = 4190
WITHOUT: Final = range(1, 20, 2)  # every other one lives on the backend
WITH: Final = range(21, 40, 2)
RULES: Final = "\n".join(
    (
        'require ["fileinto", "imap4flags"];',
        *(
            f'if header :contains "list-id" "list{number}.example.org" {{ fileinto "INBOX/Lists"; stop; }}\n'
            f'elsif address :is "from" ["boss{number}@example.org", "chief{number}@example.com"] '
            '{ addflag "\\\\Flagged"; }'
            for number in range(9)
        ),
        'if header :matches "subject" "*[ticket #*]*" { fileinto "INBOX/Tickets"; stop; }',
        'if allof(size :over 5M, not header :contains "subject" "please") { fileinto "INBOX/Large"; }',
    )
)


def make_mailboxes(peer: Peer) -> None:
    """One message for each user, so that all of their mailboxes are there."""
    for number in (*WITHOUT, *WITH):
        with imaplib.IMAP4(peer.host, timeout=60) as client:
            client.login(f"user{number}", "secret")
            client.append("INBOX", "", "", mix.message(1000))


def put(peer: Peer, user: str) -> None:
    """The script, active from now on."""
    with ManageSieve(peer.host, SIEVE) as client:
        said = client.login(user)
        if not said.is_ok:
            raise RuntimeError(said)
        client.ask('PUTSCRIPT "rules"', RULES.encode())
        client.ask('SETACTIVE "rules"')


def measure(peers: Sequence[Peer], turns: int, seconds: float) -> float:
    """Tells each server's figures; the ratio of ours."""
    users = {
        "without": [f"user{number}" for number in WITHOUT],
        "with": [f"user{number}" for number in WITH],
    }
    for peer in peers:
        for user in users["with"]:
            put(peer, user)
        for addresses in users.values():  # each compiles, and opens what it opens once
            lmtp.deliver_for((peer.host, 24), addresses, CLIENTS, 0.5)
    rates: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, list[float]]] = {}
    for turn in range(turns):
        for peer in peers:
            for name in sorted(users, reverse=bool(turn % 2)):
                before = cpu_s([peer.process])
                rate = lmtp.deliver_for((peer.host, 24), users[name], CLIENTS, seconds)
                used_s = cpu_s([peer.process]) - before
                rates.setdefault(peer.name, {}).setdefault(name, []).append(rate)
                cost = 1e6 * used_s / (rate * seconds)
                costs.setdefault(peer.name, {}).setdefault(name, []).append(cost)
    ratios = {}
    for name, found in rates.items():
        each = [one / other for one, other in zip(found["with"], found["without"], strict=True)]
        ratios[name] = statistics.median(each)
        shown = ", ".join(
            f"{which} {statistics.median(found[which]):,.0f}/s with "
            f"{statistics.median(costs[name][which]):,.0f} us of CPU each"
            for which in ("without", "with")
        )
        print(
            f"{name:8} {shown}: {ratios[name]:.2f} ({min(each):.2f} to {max(each):.2f})", flush=True
        )
    return ratios["ours"]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--without", action="append", default=[], help="cyrus or dovecot")
    given = parser.parse_args()
    if os.geteuid():
        sys.exit("this needs root: the servers listen on ports 24, 143 and 4190")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        peers = [stack.enter_context(backend.ours(folder / "ours", frontend=False))]
        has_cyrus = (backend.LAB_ROOT / "pkg/usr/lib/cyrus/bin/imapd").exists()
        if has_cyrus and "cyrus" not in given.without:
            peers.append(stack.enter_context(backend.cyrus(frontend=False)))
        if dovecot.has_sieve() and "dovecot" not in given.without:
            running = dovecot.dovecot(
                folder / "dovecot", backend.DOVECOT, backend.USERS, sieve=True
            )
            peers.append(Peer("dovecot", stack.enter_context(running), backend.DOVECOT))
        for peer in peers:
            make_mailboxes(peer)
        found = measure(peers, given.turns, given.seconds)
    verdict = "ok  " if found >= GOAL else "MISS"
    print(f"{verdict} with a script of 20 rules {found:.2f} x without (wanted >= {GOAL:g})")
    return 0 if found >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
