"""A large list on etcd: `python -m tests.ha.million [--entries 1000000]`. How long it takes to come there from a lone master
(`murder ctl list engine copy`), what it takes of each member, and how soon an empty master has it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.mupdate import fill
from tests.cyrus.our_nodes import serving
from tests.ha.masters import HOST, Master
from tests.kit.process import run_murder
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import until

QUOTA: Final = ("--quota-backend-bytes", str(8 << 30))
LONGEST_S: Final = 1800.0
MIB: Final = 1 << 20


def memory_mib(pid: int) -> float:
    """Private memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def sizes(etcd: Cluster) -> str:
    """Of each member: private memory and its database."""
    found = []
    for member in etcd.members:
        database = member.folder / "member" / "snap" / "db"
        found.append(f"{memory_mib(member.pid):.0f} MiB, {database.stat().st_size / MIB:.0f} MiB")
    return "; ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory(prefix="murder-million-") as name:
        folder = Path(name)
        with cluster(folder / "etcd", flags=QUOTA) as etcd:
            one = Master("m1", folder, etcd)
            one.sections["mupdate"]["engine"] = "embedded"
            fill(folder / "m1" / "data" / "mupdate" / "mailboxes", entries)
            with serving(folder / "m1", "m1.test", "mupdate", one.sections) as program:
                program.until_open(HOST, one.port)
                print(f"members before: {sizes(etcd)}", flush=True)
                began = time.monotonic()
                words = ["--config", str(folder / "m1" / "murder.toml"), "--to", "etcd"]
                told = run_murder(
                    *("ctl", "list", "engine", "copy", *words, "--yes", "--json"),
                    timeout_s=LONGEST_S,
                )
                took_s = time.monotonic() - began
                moved = json.loads(told.stdout)
                print(
                    f"{moved['rows']} entries copied and compared in {took_s:.0f} s, "
                    f"{moved['rows'] / took_s:.0f}/s; changes waited {moved['waited_s']:.2f} s",
                    flush=True,
                )
                print(f"members after (memory, database): {sizes(etcd)}", flush=True)
                began = time.monotonic()
                two = Master("m2", folder, etcd).start()
                until(lambda: "engine.list_taken" in two.log(), "the list", LONGEST_S, every_s=0.1)
                with two.ask(60) as peer:
                    peer.ok(f'FIND "user.load{(entries - 1) // 10:06d}.box9"')
                print(f"an empty master has it after {time.monotonic() - began:.1f} s", flush=True)
                two.stop()


if __name__ == "__main__":
    main()
