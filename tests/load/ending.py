"""`python -m tests.load.ending MODULE WORDS…`: a benchmark, which ends all that it has started also where it is told to end.

By a time limit's SIGTERM Python would end at once, and servers in sessions of their own would stay. Whatever asks for the
end is heard once: its second signal would find us ending them. Behind the context managers nothing is waited for: a thread
that nobody has told to end would keep the process for as long as it goes on.
"""

import os
import runpy
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

ASKED_BY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL: Final = 128  # as a shell has it: the exit code is this and the signal's number


class Asked(SystemExit):
    """A signal asks for the end."""

    def __init__(self, number: int) -> None:
        self.status = BY_SIGNAL + number
        super().__init__(self.status)


def end(number: int, _: FrameType | None) -> NoReturn:
    """Raises Asked where the program is: each context manager ends what it has begun."""
    for asking in ASKED_BY:
        # one that is ignored is so in what is started now, too
        signal.signal(asking, lambda *_: None)
    raise Asked(number)


def main() -> None:
    for asking in ASKED_BY:
        signal.signal(asking, end)
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except Asked as asked:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(asked.status)


if __name__ == "__main__":
    main()
