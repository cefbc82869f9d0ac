"""`python -m tests.load.ending MODULE WORDS…`: a benchmark, which ends all that it has started also where it is told to end.

By a time limit's SIGTERM Python would end at once, and servers in sessions of their own would stay. Whatever asks for the
end is heard once: its second signal would find us ending them.
"""

import runpy
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

ASKED_BY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL: Final = 128  # as a shell has it: the exit code is this and the signal's number


def end(number: int, _: FrameType | None) -> NoReturn:
    """Raises SystemExit where the program is: each context manager ends what it has begun."""
    for asking in ASKED_BY:
        # one that is ignored is so in what is started now, too
        signal.signal(asking, lambda *_: None)
    sys.exit(BY_SIGNAL + number)


def main() -> None:
    for asking in ASKED_BY:
        signal.signal(asking, end)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
