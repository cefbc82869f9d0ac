"""What is wrong with a configuration: facts an operator can act on, never a traceback."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `key` is dotted as in the file (`frontend.imap`), or empty for the file as a whole."""

    file: Path
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.text}" if self.key else f"{self.file}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has at least one; each is one line of the message."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
