"""What is wrong with a script, or went wrong while it ran: facts with their line and column, for whoever wrote it.

Lines and columns count from 1; a column counts characters.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, at a place of the script."""

    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.text}"


class BadScript(Exception):
    """A script that cannot be run: all that was found wrong with it, in the script's order, and never nothing."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class RunProblem(Exception):
    """A script that runs comes to what cannot be done. Within the room; whoever runs it gets `Outcome.problem`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
