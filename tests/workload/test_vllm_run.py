"""Recorded vLLM runs: folders and tars, ids of blocks beside them, what is refused."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.kvcache.prefix import PrefixCache
from simulator.workload.prefix_ids import block_ids
from simulator.workload.read import read_trace
from simulator.workload.vllm_run import VllmRun, is_run, read_run

DATA = Path(str(files("analysis.validation"))) / "data"
RUNS = {  # reuse of prompt blocks with an unbounded cache, requests with a hit: traces/MANIFEST of the data's release
    "vllm_measured_RTXPRO6000_Llama-3.1-8B.tar.gz": (0.0765, 7.0972, 32.5e-3),
    "vllm_measured_RTXPRO6000_Qwen3-30B-A3B-Instruct-2507.tar.gz": (0.0797, 1.0860, 47.3e-3),
}

ROW: dict[str, Any] = {
    "request_id": "bench-0", "input_toks": 40, "output_toks": 3, "arrival_time": 100.5, "queued_ts": 7.0,
    "scheduled_ts": 7.0, "first_token_ts": 7.5, "last_token_ts": 8.0,
}  # fmt: skip
META = {"model": "meta-llama/Llama-3.1-8B", "vllm_version": "0.19.0", "engine_kwargs": {"max_num_seqs": 4}}


def write(folder: Path, rows: list[dict[str, Any]], meta: Any = META) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_recorded_latencies_and_reuse(name: str) -> None:
    """The means that the data's description gives, and the reuse of prompt blocks by this cache where nobody waits.

    The cache may not serve a whole prompt, so its share can be a block a request below the description's.
    Would catch: times on another clock, requests joined to other rows' ids, ids read with another block size.
    """
    run = read_run(DATA / name)
    reuse, ttft, tpot = RUNS[name]
    assert len(run.requests) == 300
    assert float((run.first_token - run.queued).mean()) == pytest.approx(ttft, rel=1e-4)
    assert float(((run.last_token - run.first_token) / (run.output_tokens - 1)).mean()) == pytest.approx(tpot, rel=2e-3)
    assert run.id_tokens == 16
    found, total, hits = _reuse(run)
    assert found / total == pytest.approx(reuse, abs=5e-4)
    assert hits == 32


def _reuse(run: VllmRun) -> tuple[int, int, int]:
    """Blocks found, blocks in all, requests with any: one after the other through an unbounded prefix cache."""
    assert run.ids is not None and run.output_ids is not None
    cache, found, total, hits = PrefixCache(1_000_000, 16), 0, 0, 0
    for row in range(len(run.ids)):
        tokens = int(run.input_tokens[row])
        ids = block_ids(run.ids[row].tolist(), 16, 16, tokens)
        blocks = cache.found(ids, tokens + 1)  # as if the whole prompt could be found
        found, total, hits = found + len(blocks), total + len(ids), hits + bool(blocks)
        cache.begin(row, blocks)
        cache.write(row, tokens, ids)
        cache.release(row)
    return found, total, hits


def test_folder_and_tar_are_the_same(tmp_path: Path) -> None:
    """Would catch: files of a tar looked for by their full name, order of lines taken for order of arrival."""
    late = ROW | {"request_id": "bench-1", "arrival_time": 99.5, "queued_ts": 6.0, "first_token_ts": 6.5, "input_toks": 20}
    folder = write(tmp_path / "run", [ROW, late])
    packed = tmp_path / "packed.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(folder, arcname="some/where")
    for place in (folder, packed):
        assert is_run(place)
        run = read_run(place)
        assert run.arrival.tolist() == [0.0, 1.0]
        assert run.input_tokens.tolist() == [20, 40]
        assert run.first_token.tolist() == [0.5, 1.5]
        assert "prefix reuse not recorded" in run.notes[0]
        trace = read_trace(place, limit=1)
        assert (len(trace), trace.hash_ids) == (1, None)


def test_ids_beside_the_run_are_taken_if_all_lengths_agree(tmp_path: Path) -> None:
    """Would catch: ids of another workload, joined by position where the requests are numbered, another block size."""
    late = ROW | {"request_id": "bench-1", "arrival_time": 99.5, "queued_ts": 6.0, "first_token_ts": 6.5, "input_toks": 20}
    folder = write(tmp_path / "run", [late, ROW])
    ids = [
        {"input_length": 40, "output_length": 3, "hash_ids": [1, 2], "output_hash_ids": []},
        {"input_length": 20, "output_length": 3, "hash_ids": [3]},
    ]
    wrong = [ids[0], ids[1] | {"input_length": 21}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ids).encode()))
    run = read_run(folder)
    assert run.ids is not None
    assert [run.ids[row].tolist() for row in (0, 1)] == [[3], [1, 2]]
    assert (run.id_tokens, run.notes) == (16, ("block ids from b.jsonl.gz",))


def lacking(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def writing(name: str, text: str) -> Callable[[Path], None]:
    def write_it(folder: Path) -> None:
        (folder / name).write_text(text)

    return write_it


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lacking("meta.json"), "has no meta.json"),
        (writing("meta.json", "[1]"), "expected a JSON object"),
        (writing("meta.json", "{"), "not JSON"),
        (writing("requests.jsonl", ""), "no requests"),
        (writing("requests.jsonl", json.dumps(ROW) + "\nno\n"), "requests.jsonl:2: not JSON"),
        (writing("requests.jsonl", json.dumps({**ROW, "input_toks": 0})), "input_toks: 0 found; expected at least 1"),
        (writing("requests.jsonl", json.dumps({**ROW, "output_toks": "3"})), "output_toks: '3' found"),
        (writing("requests.jsonl", json.dumps({**ROW, "queued_ts": None})), "queued_ts: None found; expected a time"),
        (writing("requests.jsonl", json.dumps({**ROW, "last_token_ts": 7.1})), "times are out of order"),
        (writing("requests.jsonl", json.dumps({"input_tok": 3})), "did you mean 'input_tok'"),
        (writing("timeseries.csv", "t,runing,waiting\n1,2,3\n"), "running: missing column"),
        (writing("timeseries.csv", "t,running,waiting\n1,x,3\n"), "expected numbers"),
    ],
)
def test_what_is_refused(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    """Would catch: a traceback, an error without file and line, a row that is left out without a word."""
    folder = write(tmp_path / "run", [ROW])
    spoil(folder)
    with pytest.raises(InputError) as error:
        read_run(folder)
    assert said in str(error.value)


def test_series_starts_with_the_first_arrival(tmp_path: Path) -> None:
    """The run began 0.5 s before the first request: a tick at 1 s is 0.5 s after it.

    Would catch: curves compared half a second apart.
    """
    meta = META | {"started_at": "1970-01-01T00:01:40Z"}
    folder = write(tmp_path / "run", [ROW], meta)
    (folder / "timeseries.csv").write_text("t,running,waiting\n1.0,1,0\n")
    np.testing.assert_allclose(read_run(folder).series["t"], [0.5])


def test_arrivals_are_those_of_the_client(tmp_path: Path) -> None:
    """The second request arrives 0.1 s after the first and is taken up 0.4 s after it, between two steps.

    Would catch: arrivals at the ends of steps, which in another timeline are in the middle of one; clocks that are apart.
    """
    second = ROW | {"request_id": "bench-1", "arrival_time": 100.6, "queued_ts": 7.4, "first_token_ts": 7.8}
    run = read_run(write(tmp_path / "run", [ROW, second]))
    np.testing.assert_allclose(run.arrival, [0.0, 0.1], atol=1e-9)
    np.testing.assert_allclose(run.queued, [0.0, 0.4], atol=1e-9)
    without = [{key: value for key, value in row.items() if key != "arrival_time"} for row in (ROW, second)]
    np.testing.assert_allclose(read_run(write(tmp_path / "run", without)).arrival, [0.0, 0.4], atol=1e-9)
