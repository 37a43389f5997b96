"""Azure LLM inference traces (2023): CSV with a wall-clock time and two token counts.

`TIMESTAMP` is `YYYY-MM-DD HH:MM:SS.fffffff`: seven digits, ticks of 100 ns, one more than `strptime` takes. A suffix
`Z` or `+00:00` is accepted. The recorded clock starts at the first row. Not recorded: prefix reuse, sessions, users.
Source: github.com/Azure/AzurePublicDataset; P. Patel et al., Splitwise, ISCA 2024.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from simulator.workload.fields import Row, header, table, tokens
from simulator.workload.lines import Lines, excerpt

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Azure:
    looks = "CSV with the header " + ",".join(COLUMNS)
    block_tokens = 0
    absent: tuple[str, ...] = ("prefix reuse", "sessions")

    def recognises(self, first_line: str) -> bool:
        return not set(COLUMNS).isdisjoint(header(first_line))

    def rows(self, lines: Lines, block: int) -> Iterator[Row]:
        first: int | None = None
        for time, prompt, generated in table(lines, COLUMNS):
            at = _nanoseconds(lines, time.strip())
            input_tokens = tokens(lines, "ContextTokens", prompt)
            output_tokens = tokens(lines, "GeneratedTokens", generated)
            if at is not None and input_tokens and output_tokens:
                first = at if first is None else first
                yield Row((at - first) / 1e9, input_tokens, output_tokens)


def _nanoseconds(lines: Lines, text: str) -> int | None:
    """Wall-clock time since 1970 in whole ns: a float of seconds that large would lose the last digits."""
    match = TIME.fullmatch(text)
    try:
        since = datetime.fromisoformat(match[1] + "+00:00") - EPOCH if match else None
    except ValueError:  # month 13
        since = None
    if match is None or since is None:
        lines.problem("TIMESTAMP", f"{excerpt(text)} found; expected a time such as 2023-11-16 18:15:46.6805900")
        return None
    return (since.days * 86_400 + since.seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))
