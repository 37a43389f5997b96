"""What is wrong with the user's input, and where.

Every error of this kind ends a command with exit code 2 and is printed without a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where it is, what was found, what was expected instead."""

    where: str  # "file:line:column", "file:line", a file, or "--set"
    field: str  # dotted path of the field, or "" where there is none
    message: str  # what was found, what was expected
    hint: str = ""  # nearest valid name, or the command that lists them

    def __str__(self) -> str:
        head = f"{self.where}  {self.field}: " if self.field else f"{self.where}: "
        return head + self.message + (f"\n    {self.hint}" if self.hint else "")


class InputError(Exception):
    """The user's input is wrong; `problems` has all that was found in one pass."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        count = len(self.problems)
        tail = f"\n{count} problem{'s' if count > 1 else ''}; nothing was run"
        return "\n".join(str(problem) for problem in self.problems) + tail


@contextmanager
def writing(place: object) -> Iterator[None]:
    """What the system refuses while `place` (a file or folder) is written is wrong input: InputError for an OSError."""
    try:
        yield
    except OSError as error:
        raise InputError(Problem(str(place), "", f"cannot be written: {error.strerror or error}")) from error


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest valid name, or an empty string."""
    near = get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""
