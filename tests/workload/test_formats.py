"""Every format is read row by row as its source says; figures are those of a count that shares no code with the reader."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.workload.convert import WRITERS, convert
from simulator.workload.read import read_trace
from simulator.workload.requests import Requests
from simulator.workload.stats import absent, trace_stats

TRACES = Path(__file__).parents[2] / "traces"
RECORDED = Path(__file__).parents[2] / "analysis" / "validation" / "data"
AGENTIC = TRACES / "agentic_coding_sessions_9.jsonl.gz"

# written by hand after the columns that the readers' docstrings name: no row of these formats was at hand
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
"""
BAILIAN = """{"chat_id": 10, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 40, "output_length": 8, "type": "text", "turn": 1, "hash_ids": [1, 2]}
{"chat_id": 11, "parent_chat_id": -1, "timestamp": 1.0, "input_length": 33, "output_length": 9, "type": "search", "turn": 1, "hash_ids": [1, 3]}
{"chat_id": 12, "parent_chat_id": 10, "timestamp": 9.25, "input_length": 64, "output_length": 5, "type": "text", "turn": 2, "hash_ids": [1, 2, 4, 5]}
"""  # noqa: E501
AIPERF = """{"session_id": "a", "timestamp": 250, "input_length": 600, "output_length": 20, "hash_ids": [1, 2]}
{"session_id": "b", "timestamp": 500, "input_length": 30, "output_length": 4, "hash_ids": [3]}
{"session_id": "a", "delay": 1500, "input_length": 1100, "output_length": 7, "hash_ids": [1, 4, 5]}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def documents(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def flat_calls(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a session in the order of its document, those of sub-agents in their place."""
    return [call for row in rows for call in (flat_calls(row["requests"]) if row["type"] == "subagent" else [row])]


def test_agentic_sessions_are_read_whole() -> None:
    """Lengths and ids of every call; ids mean something inside their session only.

    Would catch: sub-agents skipped, ids compared across sessions, milliseconds, a last block without an id refused.
    """
    requests, sessions = read_trace(AGENTIC), documents(AGENTIC)
    assert requests.loop is not None and requests.session is not None and requests.hash_ids is not None
    calls = [(number, call) for number, session in enumerate(sessions) for call in flat_calls(session["requests"])]
    assert sorted(
        zip(requests.session.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
    ) == sorted((number, call["in"], call["out"]) for number, call in calls)
    seen: dict[int, set[int]] = {}
    for row in range(len(requests)):
        seen.setdefault(int(requests.session[row]), set()).update(requests.hash_ids[row].tolist())
    assert sum(len(ids) for ids in seen.values()) == len(set().union(*seen.values()))  # no id in two sessions
    assert requests.block_tokens == 64 and np.array_equal(np.diff(requests.hash_ids.offsets), requests.input_tokens // 64)


def test_agentic_calls_follow_each_other() -> None:
    """Call k + 1 of an agent waits for call k, then thinks; a sub-agent starts beside its parent, which does not wait for it.

    Would catch: a parent that waits for its sub-agents (their think time is in its own), recorded times replayed.
    """
    requests = read_trace(AGENTIC)
    assert requests.loop is not None and requests.session is not None
    sessions = documents(AGENTIC)
    for number, session in enumerate(sessions):
        rows = np.flatnonzero(requests.session == number)
        roots = [row for row in rows if requests.loop.after[row] < 0]
        assert len(roots) == 1  # the first call of the parent
        parents = [row for row in session["requests"] if row["type"] != "subagent"]
        at, chain = roots[0], [roots[0]]
        for parent in parents[1:]:
            following = [
                row for row in rows
                if requests.loop.after[row] == at and requests.input_tokens[row] == parent["in"]
                and requests.loop.delay[row] == parent["think_time"] and row not in chain
            ]  # fmt: skip
            assert following, f"session {number}: nothing follows row {at}"
            at = following[0]
            chain.append(at)
        inside = sum(len(flat_calls(row["requests"])) for row in session["requests"] if row["type"] == "subagent")
        assert len(rows) == len(parents) + inside


def test_agentic_reuse_and_times_by_brute_force() -> None:
    """Would catch: a leading run across sessions, the share of blocks instead of leading runs, think times of parents only."""
    stats, sessions = trace_stats(AGENTIC), documents(AGENTIC)
    total = hit = 0
    for session in sessions:
        seen: set[int] = set()
        for call in flat_calls(session["requests"]):
            run = 0
            while run < len(call["hash_ids"]) and call["hash_ids"][run] in seen:
                run += 1
            total, hit = total + len(call["hash_ids"]), hit + run
            seen.update(call["hash_ids"])
    assert stats["blocks_total"] == total
    # calls of a session in the order of the document; the reader's order is that of a server without delay, so that siblings
    # may be swapped: a few blocks of 286,142
    assert stats["intra_session_leading_run_fraction"] == pytest.approx(hit / total, abs=2e-4)
    calls = [call for session in sessions for call in flat_calls(session["requests"])]
    thinks = [call["think_time"] for call in calls if call.get("think_time") is not None]
    assert stats["think_time_s"]["sum"] == pytest.approx(sum(thinks)) and stats["requests"] == len(calls) == 337
    assert stats["subagents"] == 8 and stats["subagent_requests"] == 114
    assert "arrivals" not in stats and absent(AGENTIC) == ("arrivals",)


def test_tracelab_rounds() -> None:
    """Prefix lengths become ids that give just these lengths back, and gaps between rounds are those of tools and users.

    Would catch: rounds out of order, the prefix of a round that exceeds the one before, a wait that contains the answer.
    """
    path = TRACES / "tracelab_example_rounds.jsonl.gz"
    requests, rounds = read_trace(path), documents(path)
    assert requests.loop is not None and requests.session is not None and requests.hash_ids is not None
    assert len(requests) == len(rounds) == 19 and int(requests.session.max()) == 1
    by_prompt = {(row["input_tokens_total"], row["output_tokens"]): row for row in rounds}
    for row in range(len(requests)):
        found = by_prompt[int(requests.input_tokens[row]), int(requests.output_tokens[row])]
        before = int(requests.loop.after[row])
        if before >= 0:
            assert requests.output_ids is not None
            chain = [*requests.hash_ids[before].tolist(), *requests.output_ids[before].tolist()]
            ids = requests.hash_ids[row].tolist()
            same = next(
                (at for at, (one, other) in enumerate(zip(chain, ids, strict=False)) if one != other), min(len(chain), len(ids))
            )
            assert same == min(found["prefix_tokens"] // 16, len(chain))
    second = int(np.flatnonzero(requests.input_tokens == 35_740)[0])
    assert requests.loop.delay[second] == pytest.approx(50.938 - 31.647, abs=1e-6)  # by hand, from the first two rounds


def test_vidur_lengths_have_no_times() -> None:
    """Would catch: a distribution of lengths served as if all of it arrived at once."""
    path = TRACES / "vidur_arxiv_summarization_lengths.csv.gz"
    requests = read_trace(path)
    assert len(requests) == 28_257 and "arrivals" in requests.absent and "arrivals" not in trace_stats(path)


def test_timed_vidur(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,3\n2.0,20,4\n")
    requests = read_trace(path)
    assert requests.arrival.tolist() == [0.5, 2.0] and requests.input_tokens.tolist() == [10, 20]
    assert "arrivals" not in requests.absent


def test_blocks_of_16_tokens() -> None:
    """The recorded vLLM workloads: the size of their blocks is known from the answers' ids. Would catch: 512 assumed."""
    path = RECORDED / "vllm_measured_workload_llama31_blocks16.jsonl.gz"
    requests = read_trace(path)
    assert requests.block_tokens == 16 and requests.output_ids is not None
    assert trace_stats(path)["leading_run_fraction"] == 0.0765


@pytest.mark.parametrize("name", sorted(json.loads((Path(__file__).parent / "expected_run_stats.json").read_text())))
def test_latencies_of_recorded_runs(name: str) -> None:
    """Would catch: TPOT over all tokens, times from arrival_time (another clock), ms for s."""
    path = RECORDED / name
    if not path.exists():
        pytest.skip("not shipped")
    expected = json.loads((Path(__file__).parent / "expected_run_stats.json").read_text())[name]
    stats = trace_stats(path)
    assert {key: stats[key] for key in expected} == expected


def test_burstgpt(tmp_path: Path) -> None:
    """Hand-written rows. Would catch: total tokens for output, a failed request (0 tokens) that refuses the file."""
    requests = read_trace(write(tmp_path / "t.csv", BURSTGPT))
    assert requests.arrival.tolist() == [5, 45, 118] and requests.input_tokens.tolist() == [472, 1087, 417]
    assert requests.output_tokens.tolist() == [18, 230, 0] and requests.absent == ("prefix reuse", "sessions")


def test_bailian(tmp_path: Path) -> None:
    """Hand-written rows. Would catch: turns of one chat in sessions of their own, times in ms, other block sizes."""
    requests = read_trace(write(tmp_path / "t.jsonl", BAILIAN))
    assert requests.arrival.tolist() == [0.5, 1.0, 9.25] and requests.block_tokens == 16
    assert requests.session is not None and requests.session.tolist() == [0, 1, 0] and requests.loop is None


def test_aiperf(tmp_path: Path) -> None:
    """Hand-written rows: a turn with a delay waits for the end of the turn before it. Would catch: the delay from its start."""
    requests = read_trace(write(tmp_path / "t.jsonl", AIPERF))
    assert requests.loop is not None and requests.session is not None
    assert requests.arrival.tolist() == [0.25, 0.5, 1.75] and requests.loop.after.tolist() == [-1, -1, 0]
    assert requests.loop.delay.tolist() == [0, 0, 1.5] and requests.session.tolist() == [0, 1, 0]


def test_another_block_size_is_passed(tmp_path: Path) -> None:
    """Mooncake's fields with blocks of 64 tokens; the last partial one with an id or without, the same on all rows.

    Would catch: ids of the wrong size taken silently, a file that does both.
    """
    rows = '{"timestamp": 0, "input_length": 130, "output_length": 5, "hash_ids": [1, 2]}\n'
    path = write(tmp_path / "t.jsonl", rows)
    with pytest.raises(InputError, match="2 ids for 130 tokens; expected 1, one for each block of 512 tokens"):
        read_trace(path)
    assert read_trace(path, block=64).block_tokens == 64
    path = write(path, rows + rows.replace("[1, 2]", "[1, 2, 3]"))
    with pytest.raises(InputError, match=r":2  hash_ids: 3 ids for 130 tokens; expected 2"):
        read_trace(path, block=64)


BAD = {
    "burstgpt": (BURSTGPT + "soon,GPT-4,4,5,9,API log\n", ":5  Timestamp: 'soon' found"),
    "vidur": ("arrived_at,num_prefill_tokens,num_decode_tokens\n1,1,1\n1,0,1\n", ":3  num_prefill_tokens: '0' found"),
    "bailian": (BAILIAN + '{"chat_id": 1, "parent_chat_id": 2}\n', ":4  timestamp: missing"),
    "aiperf": (AIPERF + '{"session_id": "a", "delay": -1, "input_length": 5, "output_length": 1}\n', ":4  delay: '-1'"),
    "agentic": (
        json.dumps({"id": "x", "block_size": 64, "hash_id_scope": "local", "requests": [
            {"t": 0.0, "type": "n", "in": 70, "out": 5, "hash_ids": [0]},
            {"t": 1.0, "type": "n", "in": 70, "out": 5, "hash_ids": [0, 1], "think_time": 1.0}]}),
        ":1  requests.1.hash_ids: 2 ids for 70 tokens; expected 1",
    ),
    "tracelab": (
        json.dumps({"session_id": "s", "round_index": 0, "input_tokens_total": 5, "prefix_tokens": 6, "output_tokens": 1,
                    "timing_events": [{"event_type": "text", "timestamp": "2026-01-01T00:00:00Z"}]}),
        ":1  prefix_tokens: 6 found; expected at most the input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_malformed_rows_are_refused_with_their_line_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    """Would catch: a row dropped in silence, a skip that drops more than the row, a count that is not told."""
    text, message = BAD[name]
    path = write(tmp_path / "t", text)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert message in str(caught.value)
    if name == "tracelab":
        return  # its only row
    requests = read_trace(path, skip=True)
    good = {"burstgpt": 3, "vidur": 1, "bailian": 3, "aiperf": 3, "agentic": 1}[name]
    assert len(requests) == good and requests.skipped == 1 and "1 malformed row skipped" in requests.notes
    assert trace_stats(path, skip=True)["skipped"] == 1


def sample() -> Requests:
    return read_trace(TRACES / "mooncake_conversation_trace.jsonl.gz", limit=40)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    """Every writer's file is recognised, and gives back what the format carries.

    Would catch: ms for s, a last digit lost, ids of blocks that a reader cannot place, sessions mixed up.
    """
    requests = read_trace(write(tmp_path / "a", AIPERF)) if name == "aiperf" else sample()
    path = tmp_path / "out"
    with path.open("w") as file:
        notes = convert(requests, name, file)
    found = read_trace(path)
    assert found.input_tokens.tolist() == requests.input_tokens.tolist()
    assert found.output_tokens.tolist() == requests.output_tokens.tolist()
    if name != "vidur_lengths":
        assert found.arrival.tolist() == pytest.approx(requests.arrival.tolist(), abs=0 if name != "azure" else 5e-8)
    writer = WRITERS[name]
    assert (found.hash_ids is not None) == ("prefix reuse" in writer.carries)
    assert any("not carried" in note and "prefix reuse" in note for note in notes) == (found.hash_ids is None)
    if name == "aiperf":
        assert found.loop is not None and requests.loop is not None
        assert found.loop.after.tolist() == requests.loop.after.tolist()
        assert found.loop.delay.tolist() == requests.loop.delay.tolist()
    if found.hash_ids is not None and found.block_tokens == requests.block_tokens:
        assert requests.hash_ids is not None and np.array_equal(found.hash_ids.flat, requests.hash_ids.flat)


@pytest.mark.parametrize("name", WRITERS)
def test_classes_and_tenants_go_where_a_format_has_them(tmp_path: Path, name: str) -> None:
    """Only `csv` has such columns. Would catch: names lost without a word, mixed up, torn at a comma, made up where there is
    none."""
    text = 'arrival_s,input_tokens,output_tokens,class,tenant\n0,5,6,fast,"a, ""b"""\n1,5,6,,c\n2,5,6,slow,\n3,5,6,fast,c\n'
    requests, path = read_trace(write(tmp_path / "a", text)), tmp_path / "out"
    with path.open("w") as file:
        notes = convert(requests, name, file)
    found, not_said = read_trace(path), {"not carried by csv: SLO classes", "not carried by csv: tenants"}
    if name == "csv":
        assert path.read_text().splitlines()[1:3] == ['0.0,5,6,fast,"a, ""b"""', "1.0,5,6,,c"]
        for one, other in ((requests.kind, found.kind), (requests.tenant, found.tenant)):
            assert one is not None and other is not None
            assert (one.names, one.number.tolist()) == (other.names, other.number.tolist())
        assert not set(notes) & not_said
    else:
        assert {note.replace(name, "csv") for note in notes} >= not_said
        assert found.kind is None and found.tenant is None


def test_smaller_blocks_keep_the_reuse(tmp_path: Path) -> None:
    """512-token ids cut into 16-token ones: what was shared is shared, what was not is not. Would catch: parts that collide."""
    path = tmp_path / "out"
    with path.open("w") as file:
        convert(sample(), "bailian", file)
    found, requests = read_trace(path), sample()
    assert found.hash_ids is not None and requests.hash_ids is not None
    for row in range(1, 40):
        one = set(requests.hash_ids[row].tolist()) & set(requests.hash_ids[row - 1].tolist())
        parts = set(found.hash_ids[row].tolist()) & set(found.hash_ids[row - 1].tolist())
        assert {part // 32 for part in parts} <= one and len(parts) >= 32 * (len(one) - 1)
