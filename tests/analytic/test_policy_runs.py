"""KV policies in whole runs and steps: neutral settings give dense runs to the last bit, and published bounds hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from simulator.experiments.explain import explain
from simulator.experiments.run import RunResult, run_scenario
from simulator.experiments.simulation import Simulation
from simulator.kvcache.prefix import PrefixCache
from simulator.scenario import Scenario
from simulator.scheduler.policy_steps import PolicySteps
from simulator.workload.requests import HashIds, Requests

BASE: dict[str, Any] = {
    "name": "policies",
    "workload": {
        "synthetic": {
            "requests": 24, "arrivals": {"process": "poisson", "rate": "6 /s"},
            "input": {"dist": "uniform", "low": "100 tokens", "high": "3000 tokens"},
            "output": {"dist": "uniform", "low": "5 tokens", "high": "200 tokens"},
        }
    },
    "model": {"type": "llama-3.1-8b"},
    "cluster": {"gpus": {"type": "h100-80gb-sxm", "count": 1}},
    "scheduler": {"max_batch": 16},
}  # fmt: skip


def scenario(*settings: str) -> Scenario:
    return Scenario.from_dict(BASE, ".", set=settings)


def run(*settings: str) -> RunResult:
    return run_scenario(scenario(*settings), check=True)


def steps(*settings: str) -> PolicySteps:
    return PolicySteps(scenario(*settings).resolved)


def seconds(model: PolicySteps, batch: int, context: int, shared: int = 0) -> float:
    """A decode step of `batch` sequences, of which the first `shared` tokens are common and read once."""
    units = model.law.units(np.full(batch, context))
    if batch > 1:
        units += model.shared_units(shared, batch * shared)
    return model.base(batch, batch) + model.unit_time(batch) * units


@pytest.mark.parametrize(
    "neutral",
    [
        "kv.layout.groups={all: {kind: full}, }",
        "kv.layout.groups={one: {share: 0.5}, other: {share: 0.5, kind: window, window: '100000 tokens'}}",
        "kv.layout.groups={block: {tokens_per_entry: 1, run_every: 1}}",
        "kv.retention={keep: 0.5, window: '100000 tokens'}",
        "kv.retention={prompt_scale: 1.0, pre_cost: 0.0}",
        "kv.selection={kind: pages, tokens: '100000 tokens'}",
        "kv.hbm_codec={k_bits: 2, v_bits: 2, residual: '100000 tokens'}",
        "kv.loop={kind: parallel_workers, workers: 1, steps_scale: 1.0}",
        "kv.layout.query_heads=0.5",
        "kv.sharing={kind: prefix, read: once}",
    ],
)
def test_neutral_policies_are_dense_runs(neutral: str) -> None:
    """Windows, budgets and residuals beyond the context, one worker, fewer query heads in decode where bytes bound, nothing
    to share: every request ends when it did. Catches a policy that costs something by being there."""
    if "query_heads" in neutral:  # prompts do get cheaper: only decodes are compared
        plain, found = steps("kv.layout.groups={all: {}}"), steps(neutral)
        assert seconds(found, 16, 4000) == seconds(plain, 16, 4000)
        return
    plain, found = run().requests, run(neutral).requests
    assert found.finished_s.equals(plain.finished_s) and found.ttft_s.equals(plain.ttft_s)


def test_runs_of_steps_are_their_single_steps() -> None:
    """Catches a run that passes the turn of a window, and blocks of memory counted otherwise in runs."""
    codec = "kv.hbm_codec={k_bits: 4, v_bits: 4, group: 32, meta_bits: 32, residual: '64 tokens'}"
    settings = ("kv.system=duoattention", codec)
    found = scenario(*settings)
    single, coalesced = (run_scenario(found, coalesce=each, check=True) for each in (False, True))
    assert single.requests.equals(coalesced.requests)
    assert single.summary["tiers"] == coalesced.summary["tiers"]
    assert coalesced.summary["simulation"]["events"] < single.summary["simulation"]["events"] / 2


def test_block_transformer_of_one_is_dense() -> None:
    """B = 1 and no window. Catches layers that run less often than tokens come."""
    one = "kv.layout.groups={global: {share: 0.5, tokens_per_entry: 1, run_every: 1}, local: {share: 0.5}}"
    assert run(one).requests.finished_s.equals(run().requests.finished_s)
    four = steps("kv.system=blocktransformer")
    assert seconds(four, 64, 4096) < seconds(steps("kv.layout.groups={all: {}}"), 64, 4096)


def test_kivi_batch_follows_from_its_bytes() -> None:
    """As many sequences fit as their bytes allow: 0.1875 of each token beyond 128. Catches capacity left at 16 bits."""
    work = ["workload.synthetic.input={dist: fixed, tokens: '3000 tokens'}", "workload.synthetic.arrivals={process: at_once}"]
    work += ["workload.synthetic.output={dist: fixed, tokens: '1000 tokens'}", "workload.synthetic.requests=200"]
    work += ["scheduler.max_batch=200", "cluster.gpus.memory=22 GB", "scheduler.reserve=full", "scheduler.watermark=0.0"]
    batch = {}
    for name in ("none", "kivi"):
        columns = run(*work, f"kv.system={name}").requests
        begun, ended = columns.admitted_s.to_numpy(), columns.finished_s.to_numpy()
        batch[name] = max(int(((begun <= at) & (ended > at)).sum()) for at in begun)
    each = {"none": 3999, "kivi": 128 + 0.1875 * (3999 - 128)}
    assert batch["kivi"] / batch["none"] == pytest.approx(each["none"] / each["kivi"], rel=0.12)


def test_blasst_decodes_at_most_1_58_times_as_fast() -> None:
    """K whole and 0.268 of V: 1 / 0.634. Catches a skipped block whose keys are not read either."""
    plain, found = steps("kv.layout.groups={all: {}}"), steps("kv.system=blasst")
    gains = [seconds(plain, 64, context) / seconds(found, 64, context) for context in (1024, 8192, 65536)]
    assert gains == sorted(gains)
    assert gains[-1] <= 1 / 0.634 + 1e-9
    attention = (plain.law.units(np.array([9])) * plain.unit_time(1)) / (found.law.units(np.array([9])) * found.unit_time(1))
    assert attention == pytest.approx(1 / 0.634, rel=1e-4)


def test_sqa_leaves_decoding_unchanged() -> None:
    """Half of the query heads: no byte less. Catches attention time that scales with FLOPs alone."""
    plain, found = steps("kv.layout.groups={all: {}}"), steps("kv.system=sqa", "kv.layout.query_heads=0.5")
    assert seconds(found, 32, 8192) == seconds(plain, 32, 8192)
    pieces = [(8192, 0)]
    assert found.prefill_attention(pieces).time == pytest.approx(plain.prefill_attention(pieces).time / 2)


def test_hydragen_reads_a_prefix_once() -> None:
    """A batch of one is dense. At a high batch a prefix of 16,384 tokens instead of 1,024 costs Hydragen less than 15 % of its
    throughput and the baseline more than 90 %. Catches FLOPs that vanish with the bytes, bytes that do not."""
    high = ("model=llama-2-13b", "model.max_context=32768 tokens", "cluster.gpus.count=8", "kv.system=hydragen")
    model = steps(*high)
    assert seconds(model, 1, 16384, 16384) == seconds(model, 1, 16384)
    loss = 1 - seconds(model, 1024, 1024 + 64, 1024) / seconds(model, 1024, 16384 + 64, 16384)
    baseline = 1 - seconds(model, 1024, 1024 + 64) / seconds(model, 1024, 16384 + 64)
    assert 0.0 < loss < 0.15 and baseline > 0.9


def test_sharded_latents_hold_and_read_their_part() -> None:
    """8 ranks hold a latent once instead of 8 times, and read an eighth each. Catches a latent that is still copied."""
    deepseek = ("model=deepseek-v3", "model.weights=fp8", "cluster.gpus.type=h200-141gb-sxm", "cluster.gpus.count=8")
    whole, parts = steps(*deepseek, "kv.layout.groups={all: {}}"), steps(*deepseek, "kv.system=tpla")
    assert parts.memory == pytest.approx(whole.memory / 8)
    assert parts.compute == pytest.approx(whole.compute)
    held = {}
    for name in ("none", "tpla"):
        found = run(*deepseek, f"kv.system={name}", "workload.synthetic.requests=3").summary
        held[name] = found["tiers"]["l1"]["peak_bytes"]
    assert held["tpla"] == pytest.approx(held["none"] / 8, rel=0.1)


def test_speculation_by_hand() -> None:
    """A step of a batch of one: (one pass over 4 tokens + 3 drafts of 0.1 steps) / 2.952. Catches drafts that are free."""
    drafted = steps("kv.loop={kind: speculative, draft: 3, acceptance: 0.8, draft_cost: 0.1}")
    plain = steps("kv.layout.groups={all: {}}")
    whole = plain.base(4, 4) + plain.unit_time(1) * plain.law.units(np.array([1000]))
    draft = plain.base(1, 1) + plain.unit_time(1) * plain.law.units(np.array([1000]))
    expected = (whole + 0.3 * draft) / 2.952
    assert drafted.base(1, 1) + drafted.unit_time(1) * drafted.law.units(np.array([1000])) == pytest.approx(expected, rel=1e-6)


def test_attention_at_the_data_by_hand() -> None:
    """KV read at the device's own rate, queries and outputs over the link, no HBM. Catches capacity of the HBM used for KV."""
    near = "kv.placement.compute={at: near_data, memory: 100 GB, bandwidth: 10 GB/s, link: 20 GB/s, devices: 2}"
    model, plain = steps(near), steps("kv.layout.groups={all: {}}")
    token = 2 * 8 * 128 * 2
    row = 2 * (2 * 32 * 128 + 2 * 8 * 128)
    attention = 32 * 4096 * token / 20e9
    expected = plain.base(4, 4) + 32 * 4 * row / 20e9 + 4 * attention
    assert seconds(model, 4, 4096) == pytest.approx(expected, rel=1e-6)
    found = run(near).summary
    assert found["tiers"]["l1"]["capacity_bytes"] == pytest.approx(200e9, rel=1e-4)
    assert found["bound_by"] == "pool_memory"


@pytest.mark.parametrize(
    "name", ["none", "kivi", "kvcrush", "duoattention", "blasst", "blocktransformer", "mustafar", "moa", "lfm2", "x-ecomla"]
)
def test_no_run_is_faster_than_the_bounds_of_explain(name: str) -> None:
    """INV-BOUNDS under policies. Catches bounds of dense KV stated for a system that reads less."""
    found = scenario(f"kv.system={name}", "workload.synthetic.arrivals={process: at_once}")
    bounds = explain(found)["bounds"]
    measured = run_scenario(found).summary["throughput"]["decode_output_tokens_per_s"]
    assert measured < min(limit for limit in bounds["decode_tokens_per_s"].values() if limit is not None)
    assert measured < 1.2 * bounds["expected"]["decode_tokens_per_s"]


def test_states_are_read_and_written() -> None:
    """A state costs its bytes twice in each step, however long the sequence. Catches a state that is only read, or grows."""
    model = steps("kv.layout.groups={half: {share: 0.5}, mamba: {share: 0.5, kind: ssm, state: 1 MiB}}")
    plain = steps("kv.layout.groups={all: {}}")
    token = 2 * 8 * 128 * 2
    dense = plain.law.units(np.array([1]))
    for context in (100, 10_000):
        assert model.law.units(np.array([context])) == pytest.approx(dense * (0.5 * context + 0.5 * 2 * 2**20 / token))


def test_attention_over_prompts_by_group() -> None:
    """Layers that run for one token in 4 over entries of 4 tokens take a sixteenth; layers with states none; a window of 1,024
    tokens at most what it reads. Catches prompts whose attention stays dense."""
    plain = steps("kv.layout.groups={all: {}}").prefill_attention([(8192, 0)]).time
    blocks = steps("kv.layout.groups={one: {share: 0.5}, other: {share: 0.5, tokens_per_entry: 4, run_every: 4}}")
    assert blocks.prefill_attention([(8192, 0)]).time == pytest.approx((0.5 + 0.5 / 16) * plain)
    states = steps("kv.layout.groups={one: {share: 0.25}, other: {share: 0.75, kind: ssm, state: 1 MiB}}")
    assert states.prefill_attention([(8192, 0)]).time == pytest.approx(0.25 * plain)
    window = steps("kv.layout.groups={all: {kind: window, window: '1024 tokens'}}").prefill_attention([(8192, 0)]).time
    assert plain / 8 < window < plain / 2
    kept = steps("kv.retention={keep: 0.25, when: prefill_end}")
    assert kept.prefill_attention([(2048, 0)]).time == pytest.approx(plain)  # what is dropped was attended to


def test_a_prefix_is_counted_once_among_those_that_decode() -> None:
    """Common blocks and their readers against a brute-force count, while sequences come and go. Catches a reader that left and
    still counts, blocks of one reader counted as shared."""
    cache = PrefixCache(1000, 4)
    chains = {0: [1, 2, 3, 10], 1: [1, 2, 3, 11], 2: [1, 2, 12, 13], 3: [9, 14, 15, 16]}
    for sequence, ids in chains.items():
        cache.begin(sequence, cache.found(ids, 17))
        cache.write(sequence, 17, ids)

    def expected(reading: set[int]) -> tuple[int, int]:
        readers = Counter(block for sequence in reading for block in cache._held[sequence])
        several = [count for count in readers.values() if count > 1]
        return len(several), sum(several)

    reading: set[int] = set()
    for sequence, enters in ((0, True), (1, True), (3, True), (2, True), (1, False), (0, False), (2, False)):
        if enters:
            cache.decodes(sequence)
            reading.add(sequence)
        else:
            reading.discard(sequence)
            cache.release(sequence)
        assert (cache.common, cache.common_reads) == expected(reading)


def test_reading_a_prefix_once_makes_runs_faster() -> None:
    """16 requests with 2,048 common tokens of 2,112: reading them once saves time, and nothing where nothing is common. Catches
    a setting that reaches the steps of tests only."""
    times = {}
    for common in (128, 1):
        ids = np.array([[*(range(common)), *(1000 * (request + 1) + np.arange(132 - common))] for request in range(16)])
        requests = Requests(
            np.zeros(16), np.full(16, 2112), np.full(16, 100), HashIds(ids.ravel(), np.arange(17) * 132), 16, "test"
        )
        for read in ("each", "once"):
            simulation = Simulation(scenario(f"kv.sharing={{kind: prefix, read: {read}}}").resolved, requests, check=True)
            simulation.run()
            times[common, read] = max(simulation.recorder.finished)
    assert times[128, "once"] < 0.99 * times[128, "each"]
    assert times[1, "once"] == pytest.approx(times[1, "each"], rel=2e-3)


def test_explain_states_what_a_policy_reads() -> None:
    """KIVI's bytes at the mean context, and a sentence. Catches bounds and warnings that speak of dense KV."""
    found = explain(scenario("kv.system=kivi"))
    context = found["bounds"]["context_tokens"]
    kept = 128 + 0.1875 * (context - 128)
    assert found["bounds"]["roofline"]["kv_bytes_per_token"] == pytest.approx(kept * 2 * 8 * 128 * 2 * 32)
    said = next(warning for warning in found["warnings"] if warning.startswith("KV policies"))
    assert f"takes {kept / context:.0%} of its memory" in said


@pytest.mark.parametrize(
    "settings",
    [
        ("kv.system=indexcache", "kv.blocks=9000"),  # blocks of a token: with its index 1.03 blocks
        ("kv.system=doublesparsity", "kv.blocks=9000", "scheduler.reserve=full"),
        ("kv.block=1 token", "kv.blocks=9000", "kv.hbm_codec={ratio: 8, residual: 64 tokens}", "kv.sharing.kind=prefix"),
    ],
)  # fmt: skip
def test_a_sequence_may_start_several_blocks_in_a_step(settings: tuple[str, ...]) -> None:
    """Under all checks, with preemptions, in runs and singly. Catches one block a step for blocks smaller than the memory of
    a token."""
    found = [run_scenario(scenario(*settings), coalesce=each, check=True) for each in (True, False)]
    assert found[0].requests.equals(found[1].requests) and found[0].summary["requests"]["finished"] == 24
    assert found[0].summary["tiers"] == found[1].summary["tiers"]


@pytest.mark.parametrize("window", ["0 tokens", "700 tokens"])
@pytest.mark.parametrize(
    "neutral", ["kv.hbm_codec={ratio: 8, residual: 100000 tokens}", "kv.retention={keep: 0.5, window: 100000 tokens}"]
)
def test_neutral_policies_where_one_kernel_runs_everything(neutral: str, window: str) -> None:
    """GPUs whose decodes and prompt pieces share a kernel, and wait for the longest sequence. To the last bit. Catches policies
    whose steps have a kernel more, or an even batch."""
    base = ("cluster.gpus.type=a6000-48gb", "workload.synthetic.arrivals={process: at_once}", f"model.window={window}")
    plain, found = run(*base).requests, run(*base, neutral).requests
    assert found.finished_s.equals(plain.finished_s) and found.ttft_s.equals(plain.ttft_s)


def test_imbalance_is_of_what_is_read() -> None:
    """KIVI at 3/16: one long sequence among short ones makes the others wait 3/16 as long; runs are their single steps. Catches
    waits for bytes that nobody reads."""
    base = ("cluster.gpus.type=a6000-48gb", "cluster.gpus.reserve=1 GiB")
    model, plain = (steps(*base, setting) for setting in ("kv.hbm_codec.ratio=5.333333333333333", "kv.layout.query_heads=0.5"))
    contexts = [40_000] + [1_000] * 63
    assert plain.decode_imbalance(contexts) > 0.0
    assert model.decode_imbalance(contexts) == pytest.approx(3 / 16 * plain.decode_imbalance(contexts), rel=1e-5)
    codec = "kv.hbm_codec={k_bits: 4, v_bits: 4, residual: 64 tokens}"
    found = scenario(*base, codec, "workload.synthetic.arrivals={process: at_once}")
    single, coalesced = (run_scenario(found, coalesce=each, check=True) for each in (False, True))
    assert single.requests.equals(coalesced.requests)
    assert coalesced.summary["simulation"]["events"] < single.summary["simulation"]["events"]
