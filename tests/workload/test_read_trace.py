"""Reading recorded traces: formats, compression, order, window, limit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.workload.convert import convert
from simulator.workload.fields import Row
from simulator.workload.lines import Lines
from simulator.workload.read import FORMATS, read_trace
from simulator.workload.requests import HashIds, Requests, window

TRACES = Path(__file__).parents[2] / "traces"
AZURE = TRACES / "AzureLLMInferenceTrace_conv.csv.gz"
MOONCAKE = TRACES / "mooncake_conversation_trace.jsonl.gz"


def same(one: Requests, other: Requests) -> bool:
    hashes = [requests.hash_ids for requests in (one, other)]
    return (
        np.array_equal(one.arrival, other.arrival)
        and np.array_equal(one.input_tokens, other.input_tokens)
        and np.array_equal(one.output_tokens, other.output_tokens)
        and (hashes[0] is None) == (hashes[1] is None)
        and (hashes[0] is None or hashes[1] is None or np.array_equal(hashes[0].flat, hashes[1].flat))
    )


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_azure_times_are_exact_to_the_tick() -> None:
    """The second row is 4.314579 s after the first, by hand.

    Would catch: a seventh digit dropped or read as an eighth of a second, a clock that starts at 1970, CR in a number.
    """
    requests = read_trace(AZURE)
    assert requests.arrival[:2].tolist() == [0.0, 4.314579]
    assert requests.input_tokens[:2].tolist() == [374, 396] and requests.output_tokens[:2].tolist() == [44, 109]
    assert requests.output_tokens[-1] == 183  # the last line has no newline
    assert requests.hash_ids is None and requests.block_tokens == 0 and requests.notes == ()


def test_mooncake_times_are_ms_and_hashes_are_kept() -> None:
    """Would catch: ms taken for s, block ids shifted against their rows, 32-bit or object columns."""
    requests = read_trace(MOONCAKE)
    with gzip.open(MOONCAKE, "rt") as file:
        rows = [json.loads(line) for line in file]
    assert requests.hash_ids is not None and requests.block_tokens == 512
    assert len(requests) == len(requests.hash_ids) == len(rows)
    for i in (0, 1, 6_000, len(rows) - 1):
        assert requests.arrival[i] == rows[i]["timestamp"] / 1000
        assert requests.hash_ids[i].tolist() == rows[i]["hash_ids"]
    assert requests.hash_ids.flat.dtype == requests.input_tokens.dtype == np.int64


@pytest.mark.parametrize(("path", "format"), [(AZURE, "azure"), (MOONCAKE, "mooncake"), (TRACES / "sample.csv", "csv")])
def test_format_and_compression_come_from_the_content(path: Path, format: str, tmp_path: Path) -> None:
    """Named format, recognised format, plain and gzip under a wrong name read the same.

    Would catch: decisions by file name, a byte of the first line lost while looking at it.
    """
    expected = read_trace(path, format)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    (tmp_path / "plain.gz").write_bytes(raw)
    (tmp_path / "zipped.csv").write_bytes(gzip.compress(raw))
    for copy in (path, tmp_path / "plain.gz", tmp_path / "zipped.csv"):
        assert same(read_trace(copy), expected)


def test_mooncake_without_hashes(tmp_path: Path) -> None:
    """A file may leave the ids out. Would catch: a KeyError, or empty lists that look like 0 % reuse."""
    path = write(tmp_path / "t", '{"timestamp": 1500.5, "input_length": 3, "output_length": 1}\n')
    requests = read_trace(path)
    assert requests.hash_ids is None and requests.block_tokens == 0 and requests.arrival.tolist() == [1.5005]


def test_columns_in_any_order_with_others_between(tmp_path: Path) -> None:
    """Would catch: columns taken by position, quoted commas, a byte order mark, CRLF, blank lines, spaces."""
    text = '\ufeffoutput_tokens,note,arrival_s, input_tokens\r\n\r\n7,"a, b",0.5, 30\r\n8,,1.5,40'
    requests = read_trace(write(tmp_path / "t", text))
    assert requests.arrival.tolist() == [0.5, 1.5]
    assert requests.input_tokens.tolist() == [30, 40] and requests.output_tokens.tolist() == [7, 8]


def test_rows_out_of_order_are_sorted_with_a_note(tmp_path: Path) -> None:
    """Sorted by time, ties in file order. Would catch: an unstable sort, hashes left behind, a silent change."""
    rows = [(3000, 600, [1, 2]), (1000, 10, [3]), (3000, 20, [4]), (2000, 30, [5])]
    lines = [json.dumps({"timestamp": t, "input_length": n, "output_length": 1, "hash_ids": ids}) for t, n, ids in rows]
    requests = read_trace(write(tmp_path / "t", "\n".join(lines)))
    assert requests.arrival.tolist() == [1, 2, 3, 3] and requests.input_tokens.tolist() == [10, 30, 600, 20]
    assert requests.hash_ids is not None
    assert [requests.hash_ids[i].tolist() for i in range(4)] == [[3], [5], [1, 2], [4]]
    assert requests.out_of_order == 2 and requests.notes == ("2 rows out of order: sorted by arrival time",)


def test_many_rows_of_one_time_keep_file_order(tmp_path: Path) -> None:
    """Batches of 20 rows, the later batch first. Would catch: a sort that is stable for a few rows only."""
    rows = [f"{time},{row + 1},1" for time in (3, 0) for row in range(20)]
    requests = read_trace(write(tmp_path / "t", "\n".join(["arrival_s,input_tokens,output_tokens", *rows])))
    assert requests.input_tokens.tolist() == [*range(1, 21), *range(1, 21)]


def test_window_is_half_open(tmp_path: Path) -> None:
    """A row at the start is in, a row at the end is not. Would catch: a row counted in two neighbouring windows."""
    path = write(tmp_path / "t", "arrival_s,input_tokens,output_tokens\n1,1,1\n2,2,1\n3,3,1\n")
    assert read_trace(path, start=1, end=3).input_tokens.tolist() == [1, 2]
    assert window(read_trace(path), 1, 3).input_tokens.tolist() == [1, 2]


def test_azure_row_earlier_than_the_first(tmp_path: Path) -> None:
    """The clock then starts at the earliest row. Would catch: a negative arrival, a lost row."""
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:05,5,1\n2023-11-15 23:59:59.5,6,1\n"
    requests = read_trace(write(tmp_path / "t", text))
    assert requests.arrival.tolist() == [0.0, 5.5] and requests.input_tokens.tolist() == [6, 5]


def test_window_limit_and_rate() -> None:
    """Rows with 60 <= t < 120 on the recorded clock, from 0, at twice the rate, the first 50 of them.

    Would catch: a limit that counts rows before the window, times scaled before the window is cut, an open end.
    """
    whole = read_trace(AZURE)
    inside = (whole.arrival >= 60) & (whole.arrival < 120)
    part = read_trace(AZURE, start=60, end=120, rate_scale=2)
    assert np.array_equal(part.arrival, (whole.arrival[inside] - 60) / 2)
    assert np.array_equal(part.input_tokens, whole.input_tokens[inside])
    assert same(window(whole, 60, 120), read_trace(AZURE, start=60, end=120))
    limited = read_trace(AZURE, limit=50, start=60, end=120, rate_scale=2)
    assert len(limited) == 50 and np.array_equal(limited.arrival, part.arrival[:50])


def test_window_keeps_hashes_with_their_rows() -> None:
    """Would catch: offsets of the whole file used on a part of it."""
    whole, part = read_trace(MOONCAKE), read_trace(MOONCAKE, start=600, end=630)
    first = int(np.searchsorted(whole.arrival, 600))
    assert whole.hash_ids is not None and part.hash_ids is not None
    cut = window(whole, 600, 630)
    assert cut.hash_ids is not None and len(part) == len(cut) > 0
    for i in range(len(part)):
        expected = whole.hash_ids[first + i].tolist()
        assert part.hash_ids[i].tolist() == cut.hash_ids[i].tolist() == expected


@pytest.mark.parametrize("zipped", [False, True])
def test_reading_stops_at_the_limit(tmp_path: Path, zipped: bool) -> None:
    """Line 12 is broken and the gzip data end early; the first 10 rows still read.

    Would catch: a file read whole before it is cut, one row more than asked for.
    """
    lines = ["arrival_s,input_tokens,output_tokens", *(f"{i},10,5" for i in range(10)), "broken"]
    rows = [*lines, *(f"{i},{i * i % 977 + 1},5" for i in range(50_000))]
    content = "\n".join(rows).encode()
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(content)[:-2000] if zipped else content)
    assert len(read_trace(path, limit=10)) == 10


def test_a_format_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of one's own needs nothing but its entry. Would catch: names of formats spelled out elsewhere."""

    class Pairs:
        looks = "pairs of token counts, one each second"
        block_tokens = 0
        absent: tuple[str, ...] = ("prefix reuse", "sessions")

        def recognises(self, first_line: str) -> bool:
            return first_line.count(" ") == 1

        def rows(self, lines: Lines, block: int) -> Iterator[Row]:
            for second, line in enumerate(lines):
                prompt, generated = map(int, line.split())
                yield Row(float(second), prompt, generated)

    monkeypatch.setitem(FORMATS, "pairs", Pairs())
    path = write(tmp_path / "t", "10 20\n30 40\n")
    assert same(read_trace(path), read_trace(path, "pairs"))
    assert read_trace(path).output_tokens.tolist() == [20, 40]


COUNTS = st.integers(1, 2**31 - 1)
TIMES = st.floats(0, 1e9, allow_nan=False).map(abs)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TIMES, COUNTS, COUNTS), min_size=1, max_size=40))
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, int]]) -> None:
    """What is written is read back to the last bit. Would catch: rounded times, swapped columns, 32-bit counts."""
    arrival, prompts, generated = (np.array(column) for column in zip(*sorted(rows), strict=True))
    written = Requests(arrival.astype(np.float64), prompts, generated, None, 0, "test")
    path = tmp_path_factory.mktemp("round") / "t.csv"
    with path.open("w") as file:
        convert(written, "csv", file)
    assert same(read_trace(path), written)


@given(
    lists=st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8),
    picks=st.lists(st.integers(0, 7), max_size=12),
)
def test_rows_of_flat_hashes(lists: list[list[int]], picks: list[int]) -> None:
    """`take` on the flat array is indexing a list of lists. Would catch: offsets that drift at empty rows."""
    rows = [pick % len(lists) for pick in picks]
    flat = np.array([block for blocks in lists for block in blocks], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, lists)])
    taken = HashIds(flat, offsets).take(np.array(rows, dtype=np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [lists[row] for row in rows]


def test_requests_refuse_what_the_engine_could_not_use() -> None:
    """Would catch: a plug-in whose columns differ in length or are not sorted going unnoticed."""
    one, two = np.ones(1, dtype=np.int64), np.ones(2, dtype=np.int64)
    with pytest.raises(ValueError, match="different lengths"):
        Requests(np.zeros(2), one, two, None, 0, "test")
    with pytest.raises(ValueError, match="not sorted"):
        Requests(np.array([1.0, 0.0]), two, two, None, 0, "test")
