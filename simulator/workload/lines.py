"""A trace file as text lines, one at a time, and what is wrong with them.

Gzip is recognised by its first two bytes, not by the name. Text is UTF-8, with or without a byte order mark, with LF
or CRLF ends, with or without a newline at the end. Memory does not grow with the file; problems are counted, and the
first `SHOWN` are kept with their line number.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path

from simulator.errors import InputError, Problem, did_you_mean

GZIP_MAGIC = b"\x1f\x8b"
SHOWN = 20
EXCERPT = 60  # characters of the input quoted in a message


class TraceError(InputError):
    """Problems of a trace, of which `more` are counted but not shown."""

    def __init__(self, problems: list[Problem], more: int = 0):
        self.more = more
        super().__init__(problems)

    def __str__(self) -> str:
        if not self.more:
            return super().__str__()
        shown = [str(problem) for problem in self.problems]
        total = f"{len(self.problems) + self.more} problems; nothing was run"
        return "\n".join([*shown, f"... and {self.more} more", total])


class Lines(Iterator[str]):
    """The lines of a file without their ends; `number` is the line last handed out, from 1."""

    def __init__(self, name: str, stream: io.BufferedReader, skip: bool = False):
        """`skip`: a row with a problem is left out and counted."""
        self.name, self.number, self.skip = name, 0, skip
        self.skipped = 0  # rows
        self._skipped_at = 0  # line of the last one
        self.problems: list[Problem] = []
        self._stream, self._held, self._more = stream, "", 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        if self._held:
            line, self._held = self._held, ""
            return line
        try:
            raw = self._stream.readline()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.number += 1
            self.fatal("", f"gzip data cannot be read here ({error}); is the file cut short or damaged?")
            raise StopIteration from None
        if not raw:
            raise StopIteration
        self.number += 1
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            found = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
            self.fatal("", f"{found}; expected text, plain or gzip")
            raise StopIteration from None

    def peek(self) -> str:
        """The first line that is not blank, which stays to be read; empty where the file has none."""
        self._held = next((line for line in self if line.strip()), "")
        return self._held

    def problem(self, field: str, message: str, hint: str = "") -> None:
        """Note something wrong with the row of the line last handed out, which is not used."""
        if not self.skip:
            self.fatal(field, message, hint)
        elif self.number != self._skipped_at:
            self.skipped += 1
            self._skipped_at = self.number

    def fatal(self, field: str, message: str, hint: str = "") -> None:
        """Note something because of which the file cannot be used, whatever was asked for."""
        if len(self.problems) < SHOWN:
            self.problems.append(Problem(f"{self.name}:{self.number}", field, message, hint))
        else:
            self._more += 1

    def raise_problems(self) -> None:
        if self.problems:
            raise TraceError(self.problems, self._more)


@contextmanager
def open_lines(path: str | PathLike[str], skip: bool = False) -> Iterator[Lines]:
    """Open a trace, plain or gzip; `skip`: malformed rows are left out and counted."""
    name = fspath(path)
    with _open(name) as raw:
        zipped = raw.peek(2)[:2] == GZIP_MAGIC
        yield Lines(name, io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw, skip)


def _open(name: str) -> io.BufferedReader:
    try:
        return open(name, "rb")
    except IsADirectoryError:
        raise InputError(Problem(name, "", "is a folder; expected a trace file")) from None
    except FileNotFoundError:
        raise InputError(Problem(name, "", "no such file", _nearest(Path(name)))) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(Problem(name, "", f"cannot be opened: {error}")) from None


def excerpt(value: object) -> str:
    """A value as it is quoted in a message."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]
    return f"'{text}'" if len(text) <= EXCERPT else f"'{text[:EXCERPT]}...'"


def _nearest(path: Path) -> str:
    try:
        return did_you_mean(path.name, [near.name for near in path.parent.iterdir()])
    except OSError:
        return ""
