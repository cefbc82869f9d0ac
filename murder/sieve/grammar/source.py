"""A script's text and where in it something is; problems are gathered here, up to a bound."""

from bisect import bisect_right
from typing import Final

from murder.sieve.problem import BadScript, Problem

FURTHER: Final = "there are more problems, which are not told"


class Source:
    """One script. `told` counts all problems; of very many the first are kept."""

    __slots__ = ("_limit", "_lines", "_problems", "is_full", "text")

    def __init__(self, octets: bytes, script_octets: int, problems: int) -> None:
        """Raises BadScript for what is no text of a bounded size."""
        if len(octets) > script_octets:
            text = f"sieve script is too large: {len(octets)} octets, {script_octets} at most"
            raise BadScript((Problem(1, 1, text),))
        self.text = octets.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        self._lines: list[int] | None = None  # where each begins
        self._problems: list[Problem] = []
        self._limit = problems
        self.is_full = False

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of an offset."""
        if self._lines is None:
            self._lines = [0]
            line_end = self.text.find("\n")
            while line_end >= 0:
                self._lines.append(line_end + 1)
                line_end = self.text.find("\n", line_end + 1)
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def report(self, at: int, text: str) -> None:
        """One fault; past the limit it is said once that there are more."""
        if len(self._problems) < self._limit:
            self._problems.append(Problem(*self.place(at), text))
        elif not self.is_full:
            self.is_full = True
            self._problems.append(Problem(*self.place(at), FURTHER))

    def raise_problems(self) -> None:
        """Raises BadScript if anything was reported."""
        if self._problems:
            raise BadScript(
                tuple(sorted(self._problems, key=lambda problem: (problem.line, problem.column)))
            )
