"""Where a loop stands that does not turn any more, for the log: of a node whose roles run in one process.

(Workers are asked by their supervisor, which kills them then. Nobody kills this one, but systemd's watchdog.)
"""

import contextlib
import faulthandler
import math
import os
import sys
import tempfile
import threading
import time
from typing import Final

from murder.log import logger

LOOK_S: Final = 1.0
# C code may keep all threads from running: then the interpreter itself writes to standard error, so much later
LATER_S: Final = 2.0
ARMED_S: Final = 10.0  # or up to so much more: each time that this is put off a thread ends, and another one begins
STOPPED_S: Final = 1.0  # so late, and no work done: nobody let this process run
MAX_STACK: Final = 16 * 1024  # octets in the log

log = logger()


class LoopWatch:
    """A thread beside the loop. `turned` is called by the loop, every second or so."""

    def __init__(self) -> None:
        self._turned_at = time.monotonic()
        self._limit_s = 0.0
        self._is_told = False
        self._armed_at, self._armed_for_s = -math.inf, 0.0
        self._looked_at, self._worked_s = self._turned_at, time.process_time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="murder-watch", daemon=True)

    def turned(self, limit_s: float) -> None:
        """The loop turns. `limit_s`: the longest that it may not; 0: for ever."""
        self._turned_at, self._limit_s, self._is_told = time.monotonic(), limit_s, False
        more_s = min(ARMED_S, limit_s / 2)
        if limit_s != self._armed_for_s or self._turned_at - self._armed_at >= more_s:
            self._arm(limit_s, limit_s + LATER_S + more_s)
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def _arm(self, limit_s: float, later_s: float) -> None:
        self._armed_at, self._armed_for_s = self._turned_at, limit_s
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # no standard error
            if limit_s:
                faulthandler.dump_traceback_later(later_s, file=sys.__stderr__ or 2)
            else:
                self._disarm()

    def _disarm(self) -> None:
        self._armed_at = -math.inf
        faulthandler.cancel_dump_traceback_later()

    def stop(self) -> None:
        self._ended.set()
        self._disarm()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.look(time.monotonic(), time.process_time())

    def look(self, now: float, worked_s: float) -> None:
        """Tell once where the loop is, if it has not turned for too long. `worked_s`: the processor time that this process
        has had; one that was stopped from outside has had none, and is not stuck."""
        late_s, worked_s = now - self._looked_at - LOOK_S, worked_s - self._worked_s
        self._looked_at, self._worked_s = now, self._worked_s + worked_s
        if late_s > STOPPED_S and worked_s < late_s / 2:
            self._turned_at = now
        silent_s = now - self._turned_at
        if self._limit_s and silent_s > self._limit_s and not self._is_told:
            self._is_told = True
            self._disarm()
            log.error(
                "worker.stuck",
                pid=os.getpid(),
                elapsed_ms=int(silent_s * 1000),
                stack=stack_of_all(),
            )


def stack_of_all() -> str:
    """Where each thread of this process is, innermost first."""
    with tempfile.TemporaryFile(buffering=0) as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        return os.pread(file.fileno(), MAX_STACK, 0).decode("utf-8", "backslashreplace").rstrip()
