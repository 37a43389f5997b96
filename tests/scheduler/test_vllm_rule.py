"""vLLM V1's rule on toy cases: who runs in which step, worked out by hand. Blocks have 16 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from simulator.workload.requests import HashIds, Requests
from tests.properties.small import Rows, blocks, scenario

ONE = {"requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "1 token"},
       "output": {"dist": "fixed", "tokens": "1 token"}}  # fmt: skip


def flat(rows: Sequence[Sequence[int]]) -> HashIds:
    return HashIds(np.array([one for row in rows for one in row], dtype=np.int64), np.cumsum([0, *map(len, rows)]))


def served(
    settings: dict[str, Any], rows: Rows, ids: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[Sequence[int]] | None = None, coalesce: bool = False,
) -> Simulation:  # fmt: skip
    arrival, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    requests = Requests(
        arrival.astype(float), prompt, output, flat(ids) if ids else None, 16 if ids else 0, "by hand",
        output_ids=flat(outputs) if outputs else None,
    )  # fmt: skip
    simulation = Simulation(scenario({"workload.synthetic": ONE} | settings).resolved, requests, coalesce)
    simulation.run()
    return simulation


def steps(simulation: Simulation) -> list[tuple[int, int, int]]:
    """(decodes, prompt tokens, tokens given out) of each step."""
    runs = simulation.recorder.runs.arrays()
    return list(zip(runs["decodes"].tolist(), runs["prefill"].tolist(), runs["rows"].tolist(), strict=True))


def tokens(count: int) -> str:
    return f"{count} tokens"


NO_WATERMARK = {"scheduler.watermark": 0.0}
# name -> (settings, rows, steps, step at whose start each request is admitted)
CASES: dict[str, tuple[dict[str, Any], Rows, list[tuple[int, int, int]], list[int]]] = {
    # B finds no budget in the first step and stays in the queue, C none in the second; B's first share is what A leaves
    "admitted only while budget is left": (
        {"scheduler.token_budget": tokens(8)}, [(0.0, 12, 2), (0.0, 8, 2), (0.0, 2, 1)],
        [(0, 8, 0), (0, 8, 1), (1, 6, 3), (1, 0, 1)], [0, 1, 2],
    ),
    # two places: C waits for one, whatever the budget
    "at most max_batch": (
        {"scheduler.max_batch": 2}, [(0.0, 4, 2), (0.0, 4, 3), (0.0, 4, 1)],
        [(0, 8, 2), (2, 0, 2), (1, 4, 2)], [0, 0, 2],
    ),
    # A's prompt runs in chunks, B's beside it: a long prompt does not hold a short one up
    "chunks": (
        {"scheduler.token_budget": tokens(12), "scheduler.prefill_chunk": tokens(8)}, [(0.0, 20, 1), (0.0, 6, 2)],
        [(0, 12, 0), (0, 10, 1), (1, 4, 2)], [0, 0],
    ),
    # 4 blocks, 2 + 2 in use; after 12 decodes both want a third: B goes, and nobody is admitted in that step
    "preemption of the last": (
        {"kv.l1": blocks(4)} | NO_WATERMARK, [(0.0, 20, 14), (0.0, 20, 14)],
        [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1), (0, 33, 1)], [0, 0],
    ),
    # C's 2 blocks are free only when A has ended; D, which would fit, waits behind it, then for the block that B starts
    "blocks, first come first served": (
        {"kv.l1": blocks(5)} | NO_WATERMARK, [(0.0, 30, 3), (0.0, 30, 5), (0.0, 30, 1), (0.0, 5, 1)],
        [(0, 60, 2), (2, 0, 2), (2, 0, 2), (1, 30, 2), (1, 5, 2)], [0, 0, 3, 4],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_who_runs_in_which_step(case: str) -> None:
    """Would catch: a rule that admits, shares or preempts in another order than vLLM V1 does."""
    settings, rows, expected, admitted = CASES[case]
    run = served(settings, rows)
    assert steps(run) == expected
    starts = run.recorder.runs.arrays()["start"].tolist()
    assert list(run.recorder.admitted) == [starts[step] for step in admitted]


def running_order(rows: Rows, budget: int, chunk: int, places: int) -> tuple[list[tuple[int, int, int]], int]:
    """vLLM V1 in its own words, memory aside: the running list from its head, decodes and prompts alike, until the budget is
    spent, then the queue. Steps as `steps`; and how many decodes were left out of a step."""
    waiting, running = list(range(len(rows))), list[int]()
    computed, given = [0] * len(rows), [0] * len(rows)
    found, left_out = [], 0
    while waiting or running:
        left, share = budget, dict[int, int]()
        for request in [*running, *waiting[: places - len(running)]]:
            share[request] = take = min(chunk, left, rows[request][1] + given[request] - computed[request])
            left -= take
        running += [request for request in waiting if share.get(request)]
        waiting = [request for request in waiting if request not in running]
        decoding = [request for request in running if computed[request] >= rows[request][1]]
        left_out += sum(not share[request] for request in decoding)
        for request, take in share.items():
            computed[request] += take
        out = [request for request in running if computed[request] == rows[request][1] + given[request]]
        found.append((len(decoding), sum(take for one, take in share.items() if one not in decoding), len(out)))
        for request in out:
            given[request] += 1
        running = [request for request in running if given[request] < rows[request][2]]
    return found, left_out


@pytest.mark.parametrize(("budget", "chunk", "places"), [(24, 8, 8), (24, 24, 8), (12, 3, 12), (9, 5, 4), (40, 7, 5)])
def test_decodes_first_is_the_order_of_admission(budget: int, chunk: int, places: int) -> None:
    """Prompts in several chunks side by side, with decodes that were admitted before and after them: step by step what vLLM V1
    does when it goes through its running list, and no decode is left out there.

    Would catch: pieces in another order or of another size, budget that decodes behind a prompt do not get.
    """
    for seed in range(4):
        draws = np.random.default_rng(seed)
        rows = [(0.0, int(draws.integers(1, 60)), int(draws.integers(1, 20))) for _ in range(40)]
        expected, left_out = running_order(rows, budget, chunk, places)
        run = served({"scheduler.token_budget": tokens(budget), "scheduler.prefill_chunk": tokens(chunk),
                      "scheduler.max_batch": places, "kv.l1": blocks(400)}, rows)  # fmt: skip
        assert (steps(run), left_out) == (expected, 0)
        pieces = sum(prompt > 1 and decodes > 0 for decodes, prompt, _ in expected)
        assert pieces > 10


ASYNCHRONOUS = {"scheduler.asynchronous": True}


def test_planned_while_the_step_before_runs() -> None:
    """B comes in A's third step: it runs in the fifth, since the fourth is planned by then; otherwise in the fourth.

    Would catch: an arrival that enters at once, one that waits two steps too long, one lost in a run of steps.
    """
    alone = served({}, [(0.0, 16, 9)]).recorder.runs.arrays()["start"]
    rows = [(0.0, 16, 9), (float(alone[2] + alone[3]) / 2, 16, 1)]
    for coalesce in (False, True):
        later, sooner = served(ASYNCHRONOUS, rows, coalesce=coalesce), served({}, rows, coalesce=coalesce)
        assert later.recorder.admitted[1] == alone[4]
        assert sooner.recorder.admitted[1] == alone[3]


def test_an_idle_engine_plans_at_once() -> None:
    """B comes after A has ended. Would catch: an engine that waits for a step which will not come."""
    run = served(ASYNCHRONOUS, [(0.0, 16, 3), (10.0, 16, 2)])
    assert list(run.recorder.admitted) == [0.0, 10.0]
    last = served(ASYNCHRONOUS, [(0.0, 16, 3), (1e-9, 16, 2)])  # comes in the first step: in the third
    assert last.recorder.admitted[1] == last.recorder.runs.arrays()["start"][2]


PREFIX = {"kv.sharing": {"kind": "prefix"}}


def test_prefix_found_in_the_same_step_and_later() -> None:
    """A and B share 2 of 3 blocks and come together; C, the same 48 tokens as A, comes when they are gone.

    B computes 16 + 4 tokens beside A, whose blocks it finds in the step that fills them. C finds 2 blocks: the third is the
    whole prompt. Would catch: hits only on computed blocks, a hit on the last token, blocks lost with their sequence.
    """
    rows = [(0.0, 48, 2), (0.0, 52, 2), (50.0, 48, 1)]
    run = served(PREFIX, rows, [[1, 2, 3], [1, 2, 9], [1, 2, 3]])
    assert steps(run) == [(0, 48 + 20, 2), (2, 0, 2), (0, 16, 1)]
    assert list(run.recorder.cached_tokens) == [0, 32, 32]
    assert run.engine.prefix is not None
    assert (run.engine.prefix.used, run.engine.residency.l1_used, run.engine.residency.claimed) == (0, 0, 0)


def test_generated_tokens_are_found_by_the_next_turn() -> None:
    """A: 20 tokens and 14 more, of which 33 are cached: blocks 1 and 2 are full. B goes on from there.

    Would catch: ids of generated blocks ignored, or cached before their last token is written.
    """
    rows = [(0.0, 20, 14), (50.0, 40, 1)]
    run = served(PREFIX, rows, [[1], [1, 2]], [[2], []])
    assert list(run.recorder.cached_tokens) == [0, 32]
    shorter = served(PREFIX, [(0.0, 20, 12), (50.0, 40, 1)], [[1], [1, 2]], [[], []])
    assert list(shorter.recorder.cached_tokens) == [0, 16]


def test_shared_blocks_let_more_in() -> None:
    """5 blocks; A has 3, B needs 3 and shares 2: both run at once. Without sharing, B waits for A's end.

    Would catch: shared blocks claimed again, or given back while the other sequence holds them.
    """
    settings = {"kv.l1": blocks(5)} | NO_WATERMARK
    rows = [(0.0, 40, 4), (0.0, 40, 6)]
    ids = [[1, 2], [1, 2]]
    run = served(settings | PREFIX, rows, ids)
    assert list(run.recorder.admitted) == [0.0, 0.0]
    assert (run.engine.residency.l1_used, run.engine.residency.claimed) == (0, 0)
    apart = served(settings, rows, ids)
    assert list(apart.recorder.admitted) == [0.0, apart.recorder.finished[0]]


def test_preempted_sequence_finds_its_blocks_again() -> None:
    """B is preempted when both want a third block; it comes back with its first block still cached.

    Would catch: a preempted sequence's blocks forgotten, tokens of a second hit left out of the account.
    """
    settings = {"kv.l1": blocks(4)} | NO_WATERMARK | PREFIX
    rows = [(0.0, 20, 14), (0.0, 20, 14)]
    run = served(settings, rows, [[1], [5]], [[2], [6]])
    assert list(run.recorder.preemptions) == [0, 1]
    assert list(run.recorder.cached_tokens) == [0, 16 if steps(run)[-1] == (0, 17, 1) else 32]
    assert steps(run)[-1][1] + run.recorder.cached_tokens[1] == 33


@pytest.mark.parametrize("capacity", [14, 40])
def test_runs_are_their_single_steps_with_a_prefix_cache(capacity: int) -> None:
    """Conversations that grow, few blocks. Would catch: blocks that the cache hears of late because their steps were a run."""
    rng = np.random.default_rng(3)
    rows, ids, outputs = [], [], []
    at = 0.0
    for _ in range(30):
        family, length = int(rng.integers(4)), int(rng.integers(20, 90))
        answer = int(rng.integers(1, 40))
        chain = [1000 * family + index for index in range((length + answer) // 16)]
        at += float(rng.exponential(2e-3))
        rows.append((at, length, answer))
        ids.append(chain[: length // 16])
        outputs.append(chain[length // 16 :])
    settings = {"kv.l1": blocks(capacity)} | PREFIX
    one, other = (served(settings, rows, ids, outputs, coalesce) for coalesce in (False, True))
    assert one.recorder.cached_tokens == other.recorder.cached_tokens
    assert sum(one.recorder.cached_tokens) > 0
    assert list(one.recorder.finished) == list(other.recorder.finished)
