"""LMTP with users' scripts beside LMTP without: `build.py bench sieve [--turns N] [--seconds N]`.

One backend of a `murder demo`, ten users without a script and ten whose script has twenty rules. Turns alternate, so that
both meet the same disk and the same neighbours; the figure is the median of the turns' ratios.
"""

import argparse
import statistics
import subprocess
from typing import Final

from tests.kit.demo import Demo, running_demo
from tests.kit.process import ROOT, murder_command
from tests.load import lmtp
from tests.load.processes import cpu_s

CLIENTS: Final = 10
GOAL: Final = 0.7
WITHOUT: Final = range(1, 11)
WITH: Final = range(11, 21)
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


def ctl(demo: Demo, *words: str, given: str = "") -> None:
    """`murder ctl sieve`."""
    subprocess.run(
        [*murder_command(), "ctl", "sieve", *words, "--config", str(demo.info["operator"])],
        input=given.encode(),
        stdout=subprocess.DEVNULL,
        check=True,
        cwd=ROOT,
        timeout=60,
    )


def measure(demo: Demo, turns: int, seconds: float) -> float:
    """The median of what is delivered with a script as a part of what is delivered without."""
    (backend,) = demo.backends
    users = {"without": [demo.user(n) for n in WITHOUT], "with": [demo.user(n) for n in WITH]}
    for user in users["with"]:
        ctl(demo, "put", user, "rules", given=RULES)
        ctl(demo, "activate", user, "rules")
    ratios: list[float] = []
    for _ in range(turns):
        rates: dict[str, float] = {}
        costs: dict[str, float] = {}
        for name, addresses in users.items():
            before = cpu_s([demo.process.pid])
            place = (backend["host"], backend["lmtp"])
            rates[name] = lmtp.deliver_for(place, addresses, CLIENTS, seconds)
            used_s = cpu_s([demo.process.pid]) - before
            costs[name] = 1e6 * used_s / (rates[name] * seconds)
        ratios.append(rates["with"] / rates["without"])
        shown = ", ".join(f"{n} {rates[n]:,.0f}/s, {costs[n]:,.0f} us of CPU" for n in rates)
        print(f"{shown}: {ratios[-1]:.2f}", flush=True)
    return statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    with running_demo("--backends", "1", "--users", "20") as demo:
        found = measure(demo, given.turns, given.seconds)
    verdict = "ok  " if found >= GOAL else "MISS"
    print(f"{verdict} with a script of 20 rules {found:.2f} x without (wanted >= {GOAL:g})")
    return 0 if found >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
