"""What is wrong with a trace is said once, with file, line, field, what was found and what was expected."""

from __future__ import annotations

import gzip
import json
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.workload.read import read_trace

HEADER = b"arrival_s,input_tokens,output_tokens\n"
ROW = b'{"timestamp": 0, "input_length": 1, "output_length": 1}'
AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"


def errors(path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_trace(path, **options)
    return caught.value


BAD_FILES = {
    "empty": (b"", "t: is empty; expected a trace"),
    "blank": (b"\n \n", "t: is empty; expected a trace"),
    "empty gzip": (gzip.compress(b""), "t: is empty"),
    "header only": (HEADER, "t: no requests; expected at least one row"),
    "gzip cut short": (gzip.compress(HEADER + b"0,1,1\n" * 9)[:-12], "gzip data cannot be read here"),
    "gzip cut in its header": (b"\x1f\x8b\x08", "t:1: gzip data cannot be read here"),
    "gzip damaged": (gzip.compress(HEADER + b"0,1,1\n")[:-8] + bytes(8), "gzip data cannot be read here"),
    "not utf-8": (HEADER + b"0,1,1\n0,1,1\xff\n", "t:3: byte 0xff at position 6 is not UTF-8"),
    "utf-16": ("arrival_s,input_tokens".encode("utf-16"), "t:1: byte 0xff at position 1 is not UTF-8"),
    "unknown format": (b"a,b,c\n1,2,3\n", "t:1  format: format not recognised from the first line, 'a,b,c'"),
    "binary": (b"a\x00b\rc", "format not recognised"),
    "missing column": (
        b"arrival,input_tokens,output_tokens\n0,1,1\n",
        "in the header 'arrival,input_tokens,output_tokens'; expected one\n    did you mean 'arrival'?",
    ),
    "column twice": (b"arrival_s,input_tokens,output_tokens,arrival_s\n0,1,1,1\n", "arrival_s: 2 columns of this name"),
    "short row": (HEADER + b"0,1\n", "t:2: row of 2 columns; expected 3, as in the header"),
    "decimal comma": (HEADER + b"0,5,1,1\n", "t:2: row of 4 columns; expected 3"),
    "open quote": (HEADER + b'0,"1,1\n0,1,1\n', "not CSV: unexpected end of data"),
    "time nan": (HEADER + b"nan,1,1\n", "t:2  arrival_s: 'nan' found; expected a time in seconds, a finite number"),
    "time inf": (HEADER + b"inf,1,1\n", "t:2  arrival_s: 'inf' found"),
    "time negative": (HEADER + b"0,1,1\n-0.1,1,1\n", "t:3  arrival_s: '-0.1' found"),
    "time text": (HEADER + b"soon,1,1\n", "t:2  arrival_s: 'soon' found"),
    "time empty": (HEADER + b",1,1\n", "t:2  arrival_s: '' found"),
    "time with underscore": (HEADER + b"1_0,1,1\n", "t:2  arrival_s: '1_0' found"),
    "no input tokens": (HEADER + b"0,0,1\n", "t:2  input_tokens: '0' found; expected a whole number of tokens from 1"),
    "no output tokens": (HEADER + b"0,1,0\n", "t:2  output_tokens: '0' found"),
    "negative tokens": (HEADER + b"0,-1,1\n", "t:2  input_tokens: '-1' found"),
    "fraction of a token": (HEADER + b"0,1.5,1\n", "t:2  input_tokens: '1.5' found"),
    "too many tokens": (HEADER + b"0,99999999999999999999,1\n", "t:2  input_tokens: '99999999999999999999' found"),
    "azure time": (AZURE + b"2023-13-16 18:15:46.6805900,1,1\n", "t:2  TIMESTAMP: '2023-13-16 18:15:46.6805900' found"),
    "azure number": (AZURE + b"46.68,1,1\n", "expected a time such as 2023-11-16 18:15:46.6805900"),
    "azure tokens": (AZURE + b"2023-11-16 18:15:46,x,1\n", "t:2  ContextTokens: 'x' found"),
    "not json": (b'{"timestamp": 0,\n', "t:1: not JSON: "),
    "json list": (
        b'{"timestamp": 0, "input_length": 1, "output_length": 1}\n[1]\n',
        "t:2: '[1]' found; expected a JSON",
    ),
    "json deep": (b'{"timestamp": ' + b"[" * 100_000, "t:1: not JSON: "),
    "json key": (b'{"timestamp": 0, "input_length": 1}\n', "t:1  output_length: missing; expected the keys timestamp,"),
    "json nan": (
        b'{"timestamp": NaN, "input_length": 1, "output_length": 1}\n',
        "t:1  timestamp: 'nan' found; expected a time in ms",
    ),
    "json huge": (
        b'{"timestamp": 1' + b"0" * 400 + b', "input_length": 1, "output_length": 1}',
        "t:1  timestamp: '1000",
    ),
    "json bool": (b'{"timestamp": 0, "input_length": true, "output_length": 1}', "t:1  input_length: 'True' found"),
    "json float": (b'{"timestamp": 0, "input_length": 2.0, "output_length": 1}', "t:1  input_length: '2.0' found"),
    "hash text": (
        b'{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
        "t:1  hash_ids: '['a']' found; expected a list of whole numbers",
    ),
    "block size": (
        b'{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1, 2, 3]}',
        "t:1  hash_ids: 3 ids for 600 tokens; expected 2, one for each block of 512 tokens",
    ),
    "hashes on some": (
        ROW[:-1] + b', "hash_ids": [1]}\n' + ROW,
        "t:2  hash_ids: on some rows only; expected on all rows or on none",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    """Would catch: a traceback, a row skipped in silence, a wrong line number, a message without what was expected."""
    monkeypatch.chdir(tmp_path)
    Path("t").write_bytes(content)
    error = errors(Path("t"))
    assert message in str(error)
    assert len(error.problems) == 1


def test_no_such_file(tmp_path: Path) -> None:
    """Would catch: a traceback, no hint at a file of nearly that name."""
    (tmp_path / "sample.csv").write_bytes(HEADER)
    assert "simple.csv: no such file\n    did you mean 'sample.csv'?" in str(errors(tmp_path / "simple.csv"))
    assert "no such file" in str(errors(tmp_path / "nowhere" / "t"))
    assert "is a folder; expected a trace file" in str(errors(tmp_path))
    assert "cannot be opened" in str(errors(Path("t\0")))


def test_options_are_checked_together(tmp_path: Path) -> None:
    """Would catch: one problem at a time, a rate of 0 that divides, a NaN that passes every comparison."""
    path = tmp_path / "t"
    path.write_bytes(HEADER + b"0,1,1\n")
    text = str(errors(path, format="azur", limit=0, start=-1.0, rate_scale=0.0))
    assert "format: 'azur' is not a trace format; expected one of auto, azure, csv, burstgpt" in text
    assert "did you mean 'azure'?" in text and "limit: 0 found" in text and "start: -1.0 s found" in text
    assert "rate_scale: 0.0 found" in text and "4 problems" in text
    for options in ({"start": nan}, {"start": inf}, {"end": nan}, {"end": 0.0}, {"rate_scale": inf}):
        assert len(errors(path, **options).problems) == 1


def test_window_without_requests(tmp_path: Path) -> None:
    """Says where the trace is. Would catch: an empty run that looks like a finished one."""
    path = tmp_path / "t"
    path.write_bytes(HEADER + b"2,1,1\n9,1,1\n")
    assert "no request from 100 s to inf s; the trace runs from 2.0 s to 9.0 s" in str(errors(path, start=100))


def test_forced_format_that_does_not_fit(tmp_path: Path) -> None:
    """Would catch: columns of another format accepted, thousands of messages for one cause."""
    path = tmp_path / "t"
    path.write_bytes(AZURE + b"2023-11-16 18:15:46,1,1\n" * 50)
    assert len(errors(path, format="csv").problems) == 3


def test_all_problems_in_one_pass(tmp_path: Path) -> None:
    """20 are shown, the others counted. Would catch: stopping at the first, flooding the terminal, a wrong total."""
    path = tmp_path / "t"
    path.write_bytes(HEADER + b"x,0,1\n0,1,1\n" * 15)
    text = str(errors(path))
    shown = text.splitlines()
    assert shown[0].startswith(f"{path}:2  arrival_s") and shown[1].startswith(f"{path}:2  input_tokens")
    assert shown[19].startswith(f"{path}:20  input_tokens")
    assert shown[20:] == ["... and 10 more", "30 problems; nothing was run"]


def test_problems_before_the_cut_are_kept(tmp_path: Path) -> None:
    """Would catch: the end of a damaged file hiding what was wrong before it."""
    path = tmp_path / "t"
    content = gzip.compress(HEADER + b"x,1,1\n" + b"".join(b"%d,%d,1\n" % (i, i * i + 1) for i in range(40_000)))
    path.write_bytes(content[:-1000])
    found = errors(path).problems
    assert found[0].field == "arrival_s" and "gzip" in found[-1].message


CELL = st.one_of(st.sampled_from(["0", "1", "1.5", "nan", '"', "-1", "", "[1]", "{}", "1e999"]), st.text(max_size=5))
START = st.sampled_from([HEADER, AZURE, b"", b"\x1f\x8b", ROW + b"\n", gzip.compress(HEADER + b"0,1,1\n")])
BODY = st.one_of(
    st.binary(max_size=80),
    st.lists(CELL, max_size=8).map(lambda cells: ",".join(cells).encode()),
    st.dictionaries(st.sampled_from(["timestamp", "input_length", "output_length", "hash_ids"]), CELL).map(
        lambda row: json.dumps(row).encode()
    ),
)


@settings(deadline=None)
@given(start=START, body=BODY, zipped=st.booleans())
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, start: bytes, body: bytes, zipped: bool) -> None:
    """Whatever is in the file, the outcome is requests that hold what they promise, or an InputError.

    Would catch: another exception from csv, json, gzip or numpy; a NaN or a count of 0 that got through.
    """
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(gzip.compress(start + body) if zipped else start + body)
    try:
        requests = read_trace(path)
    except InputError as error:
        assert error.problems and str(path) in str(error)
    else:
        assert np.isfinite(requests.arrival).all() and (requests.arrival >= 0).all()
        assert requests.input_tokens.min() >= 1 and requests.output_tokens.min() >= 1
