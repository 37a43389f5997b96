"""Throughput, energy and cost-performance: eight GPUs alone at batch 16 against the pool at batch 64.

Reported: 487 tokens/s at batch 16 on GPUs alone, 1,549 at batch 64 with the pool. What the pool has to do with it is asked
by two more runs: GPUs alone at batch 64, and the same pair for a model whose KV has all heads (their own formula; LLaMA-2
70B has grouped-query attention, an eighth of it).

The search varies how long the prompts are, and, where KV has to leave HBM, how many tokens of a context a step may read, for
each link, ratio and place of decompression.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analysis.reproduction.claim import ABSTRACT, PAPER, REPORTED, Claim, Finding, Regime, Rows, largest
from analysis.reproduction.compression import RATIO
from analysis.reproduction.latency import SPECULATIVE, STEP
from analysis.reproduction.world import (
    ALL_HEADS,
    GROUPED,
    LINKS,
    MEASURED,
    Runs,
    Summary,
    decode_tokens_per_s,
    line,
    scenario,
    tokens_per_s,
)

SMALL, LARGE = 16, 64  # batches
BEFORE, AFTER = 487.0, 1549.0  # tokens/s, reported
ENERGY, JOULES, VALUE = 1.90, (0.647, 0.340), 1.75  # reported: times, J per token before and after, times per dollar
PROMPTS = (16, 2048)  # tokens
CONTEXT = 2048 + 256
LEAST = 16.0  # tokens a step reads at least in the search
AT_GPU = ("kv.codec.decompress_at=gpu",)
WAYS = {  # what the read budget is searched over: links, ratio, place of decompression
    f"stated link, ratio {RATIO}, FPGA": (),
    f"stated link, ratio {RATIO}, GPU": AT_GPU,
    f"PCIe Gen4, ratio {RATIO}, FPGA": LINKS,
    f"PCIe Gen4, ratio {RATIO}, GPU": (*LINKS, *AT_GPU),
    "PCIe Gen4, measured ratio, FPGA": MEASURED,
    "PCIe Gen4, measured ratio, GPU": (*MEASURED, *AT_GPU),
}


def claims(runs: Runs, rounds: int) -> list[Claim]:
    before = {model: runs.alone(model, SMALL) for model in (GROUPED, ALL_HEADS)}
    tables: dict[str, Rows] = {"Eight GPUs alone, and with the pool": _runs(runs)}
    assumed, measured = runs.pool(GROUPED, LARGE), runs.pool(GROUPED, LARGE, *MEASURED)
    without, spilled = runs.alone(GROUPED, LARGE), runs.pool(ALL_HEADS, LARGE)
    prompts = _longest(runs, rounds, lambda one, other: tokens_per_s(other) >= AFTER / BEFORE * tokens_per_s(one))
    budgets = _budgets(runs, rounds)
    tables["Tokens of each context that a step may read (KV of all heads) for the reported speed-up in decode"] = budgets
    possible = [row["tokens a step may read"] for row in budgets if row["tokens a step may read"] is not None]
    decode = decode_tokens_per_s(assumed) / decode_tokens_per_s(before[GROUPED])
    times = tokens_per_s(assumed) / tokens_per_s(before[GROUPED])
    read = 100.0 * spilled["kv_access"]["l3_read_share"]

    def how(of: Summary) -> str:
        return (
            f"{tokens_per_s(of):,.0f} tokens/s at batch {LARGE} against {tokens_per_s(before[GROUPED]):,.0f} at {SMALL} with "
            f"prompts of 2,048 tokens; {100 * of['kv_access']['l3_read_share']:.0f} % of KV reads come from the pool"
        )

    spill = (
        f"with KV of all heads the pool run has {tokens_per_s(spilled):,.0f} tokens/s, since {read:.0f} % of what a step reads "
        f"crosses the links"
    )
    regime = f"the batch alone gives {decode:.3g} times in decode" + (
        f"; {AFTER / BEFORE:.3g} times with prompts of at most {prompts:,.0f} tokens" if prompts is not None else ""
    )
    if possible:
        regime += (
            f"; where KV has all heads, if a step reads at most {min(possible):,.0f} to {max(possible):,.0f} of {CONTEXT:,} "
            f"tokens of a context"
        )
    alone = tokens_per_s(without)
    fits = assumed["kv_access"]["l3_read_share"] == 0
    contradiction = (
        f"{'The gain is that of the batch, which HBM holds: ' if fits else ''}GPUs alone at batch {LARGE} have {alone:,.0f} "
        f"tokens/s, the pool {tokens_per_s(assumed):,.0f}. Where the batch does not fit, {spill}."
    )
    rate = Claim(
        "throughput", f"throughput of LLaMA-2 70B rises {AFTER / BEFORE:.2f} times, batch {SMALL} to {LARGE}", AFTER / BEFORE,
        "times", f"{PAPER}, section 4.2; abstract: up to 3.2 times", ABSTRACT,
        Finding(times, how(assumed)), Finding(tokens_per_s(measured) / tokens_per_s(before[GROUPED]), how(measured)),
        Regime(prompts, regime), contradiction, tables=tables,
    )  # fmt: skip
    prefill = _prefill_bound(runs)
    absolute = Claim(
        "tokens_per_s", f"{AFTER:,.0f} tokens/s at batch {LARGE}", AFTER, "tokens/s", f"{PAPER}, section 4.2", REPORTED,
        Finding(tokens_per_s(assumed), f"decode alone {decode_tokens_per_s(assumed):,.0f}"),
        Finding(tokens_per_s(measured), f"decode alone {decode_tokens_per_s(measured):,.0f}"),
        _prompts_text(_longest(runs, rounds, lambda one, other: tokens_per_s(other) >= AFTER), f"{AFTER:,.0f} tokens/s"),
        f"Prompts of 2,048 tokens alone allow {prefill:,.0f} output tokens/s at 256 tokens each, whatever decode costs. At "
        f"{BEFORE:,.0f} tokens/s and the reported {STEP} ms a step, {BEFORE * STEP * 1e-3:.1f} decode at a time, not {SMALL}; "
        f"at {AFTER:,.0f} and {SPECULATIVE} ms, {AFTER * SPECULATIVE * 1e-3:.1f}, not {LARGE}.",
    )  # fmt: skip
    three = before[GROUPED], assumed, measured
    return [rate, absolute, _energy(runs, rounds, *three), _cost(runs, rounds, *three)]


def _runs(runs: Runs) -> Rows:
    rows = []
    for model in (GROUPED, ALL_HEADS):
        kind = "grouped-query KV" if model == GROUPED else "KV of all heads"
        rows += [
            line(f"{kind}: GPUs alone, batch {SMALL}", runs.alone(model, SMALL)),
            line(f"{kind}: GPUs alone, batch {LARGE}", runs.alone(model, LARGE)),
            line(f"{kind}: pool as assumed, batch {LARGE}", runs.pool(model, LARGE)),
            line(f"{kind}: the same, no speculation", runs.pool(model, LARGE, "prefetch={predictor: none}")),
            line(f"{kind}: the same, next layer", runs.pool(model, LARGE, "prefetch={predictor: next_layer}")),
            line(f"{kind}: pool as measured, batch {LARGE}", runs.pool(model, LARGE, *MEASURED)),
        ]
    return rows


def _longest(runs: Runs, rounds: int, holds: Callable[[Summary, Summary], bool]) -> float | None:
    """The longest prompts (tokens) with which `holds` of (GPUs alone at 16, the pool at 64); None: not even short ones."""

    def at(tokens: float) -> bool:
        prompt = f"workload.synthetic.input.tokens={round(tokens)} tokens"
        return holds(runs.alone(GROUPED, SMALL, prompt), runs.pool(GROUPED, LARGE, prompt))

    return largest(at, *PROMPTS, rounds)


def _prompts_text(found: float | None, what: str) -> Regime:
    if found is None:
        return Regime(None, f"no prompts of {PROMPTS[0]:,} tokens or more give {what}")
    return Regime(found, f"prompts of at most {found:,.0f} tokens give {what}, by the batch")


def budget(tokens: float) -> str:
    return f"kv.selection={{kind: budget, tokens: {round(tokens)} tokens}}"


def decode_gain(runs: Runs, *settings: str) -> float:
    """Decode throughput of the pool at batch 64 over GPUs alone at 16, KV of all heads."""
    return decode_tokens_per_s(runs.pool(ALL_HEADS, LARGE, *settings)) / decode_tokens_per_s(runs.alone(ALL_HEADS, SMALL))


def _budgets(runs: Runs, rounds: int) -> Rows:
    rows = []
    for way, settings in WAYS.items():
        found = _most_read(runs, settings, rounds)
        rows.append(
            {
                "way": way,
                "tokens a step may read": None if found is None else round(found),
                f"speed-up with {LEAST:.0f} tokens": decode_gain(runs, *settings, budget(LEAST)),
                "speed-up with all": decode_gain(runs, *settings),
            }
        )
    return rows


def _most_read(runs: Runs, settings: tuple[str, ...], rounds: int) -> float | None:
    """Tokens of a context a step may read and still have the reported speed-up."""
    wanted = AFTER / BEFORE
    return largest(lambda tokens: decode_gain(runs, *settings, budget(tokens)) >= wanted, LEAST, float(CONTEXT), rounds)


def _prefill_bound(runs: Runs) -> float:
    """Output tokens/s if decode cost nothing: 256 tokens a prompt over the time of a prompt on the eight GPUs."""
    one = runs.alone(GROUPED, 1, "workload.synthetic.requests=1")
    return 256.0 / float(one["latency"]["ttft_s"]["mean"])


def _joules(summary: Summary) -> float:
    return float(summary["energy"]["joules_per_output_token"])


def _usd(summary: Summary) -> float:
    return float(summary["cost"]["usd_per_million_output_tokens"])


def _energy(runs: Runs, rounds: int, before: Summary, assumed: Summary, measured: Summary) -> Claim:
    per_token = [_joules(one) for one in (before, assumed, measured)]
    without = _joules(runs.alone(GROUPED, LARGE))
    prompts = _longest(runs, rounds, lambda one, other: _joules(one) >= ENERGY * _joules(other))
    return Claim(
        "energy", f"energy per token falls {ENERGY:.2f} times ({JOULES[0]:.3f} to {JOULES[1]:.3f} J)", ENERGY, "times",
        f"{PAPER}, Table 7", REPORTED,
        Finding(per_token[0] / per_token[1], f"{per_token[0]:.3g} to {per_token[1]:.3g} J per output token, prompts included"),
        Finding(per_token[0] / per_token[2], f"{per_token[0]:.3g} to {per_token[2]:.3g} J"),
        _prompts_text(prompts, "it"),
        f"GPUs alone at batch {LARGE} need {without:.3g} J, with the boards it is {per_token[1]:.3g} J. {JOULES[1]:.3f} J per "
        f"token at {AFTER:,.0f} tokens/s would be {JOULES[1] * AFTER:,.0f} W for the whole system, eight GPUs of "
        f"{scenario().resolved.gpus.gpu.idle_power:,.0f} W idle included.",
    )  # fmt: skip


def _cost(runs: Runs, rounds: int, before: Summary, assumed: Summary, measured: Summary) -> Claim:
    usd = [_usd(one) for one in (before, assumed, measured)]
    without = _usd(runs.alone(GROUPED, LARGE))
    prompts = _longest(runs, rounds, lambda one, other: _usd(one) >= VALUE * _usd(other))
    return Claim(
        "cost_performance", f"tokens per dollar rise {VALUE:.2f} times (2.2 at eight GPUs, 2.3 in the conclusion)", VALUE,
        "times", f"{PAPER}, section 4.4.2", REPORTED,
        Finding(usd[0] / usd[1], f"{usd[0]:.3g} to {usd[1]:.3g} USD per million output tokens, prices of the catalogue"),
        Finding(usd[0] / usd[2], f"{usd[0]:.3g} to {usd[2]:.3g} USD"),
        _prompts_text(prompts, "it"),
        f"GPUs alone at batch {LARGE} cost {without:.3g} USD per million, with the boards it is {usd[1]:.3g}.",
    )  # fmt: skip


def speed_up_curves(runs: Runs, points: list[int]) -> Rows:
    """Of the figure: speed-up in decode by the tokens a step may read, a line a way."""
    rows: list[dict[str, Any]] = []
    for way, settings in WAYS.items():
        rows += [{"way": way, "tokens": tokens, "speed-up": decode_gain(runs, *settings, budget(tokens))} for tokens in points]
    return rows
