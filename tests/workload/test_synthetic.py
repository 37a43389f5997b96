"""Synthetic requests: moments of the distributions, independence of the streams, and what `build` chooses."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator.errors import InputError
from simulator.scenario.resolved import Lengths, Workload
from simulator.workload.arrivals import draw_arrivals
from simulator.workload.lengths import draw_lengths
from simulator.workload.read import read_trace
from simulator.workload.requests import Requests
from simulator.workload.synthetic import build, generate

TRACES = Path(__file__).parents[2] / "traces"
AZURE = str(TRACES / "AzureLLMInferenceTrace_conv.csv.gz")
Z99 = 2.576  # 99 % of a normal distribution
FIXED = Lengths("fixed", tokens=100)
BASE = Workload(
    path="", format="auto", limit=None, start=0.0, end=inf, rate_scale=1.0,
    process="poisson", rate=4.0, cv=0.0, requests=1000, input=FIXED, output=FIXED,
)  # fmt: skip


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(seed: int = 1, **changes: Any) -> Requests:
    return generate(replace(BASE, **changes), rng(seed), rng(seed + 1000))


@pytest.mark.parametrize(("process", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 3.0)])
def test_rate_of_arrivals(process: str, cv: float) -> None:
    """The mean of 100,000 gaps is 1 / rate, inside its 99 % interval: cv / rate / sqrt(n).

    Would catch: rate and gap mixed up, a gamma whose scale leaves the mean at shape.
    """
    gaps = np.diff(draw_arrivals(rng(7), process, 100_001, rate=4.0, cv=cv))
    assert abs(gaps.mean() - 0.25) < Z99 * cv * 0.25 / sqrt(len(gaps))


@pytest.mark.parametrize(("process", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 2.0)])
def test_cv_of_arrivals(process: str, cv: float) -> None:
    """The coefficient of variation is inside the 99 % t-interval of 20 replications.

    Would catch: shape cv instead of 1 / cv^2, or its square root.
    """
    found = []
    for seed in range(20):
        gaps = np.diff(draw_arrivals(rng(seed), process, 20_001, rate=0.3, cv=cv))
        found.append(gaps.std() / gaps.mean())
    low, high = stats.t.interval(0.99, len(found) - 1, loc=np.mean(found), scale=stats.sem(found))
    assert low < cv < high


def test_poisson_gaps_are_exponential() -> None:
    """Kolmogorov-Smirnov against the exponential distribution at 1 %. Would catch: another law of the same mean."""
    gaps = np.diff(draw_arrivals(rng(3), "poisson", 20_001, rate=2.0, cv=0.0))
    assert stats.kstest(gaps, stats.expon(scale=0.5).cdf).pvalue > 0.01


def test_constant_and_at_once() -> None:
    """Would catch: an arrival one gap late, a division by a rate that at_once does not have, inf as a rate."""
    assert draw_arrivals(rng(0), "constant", 4, rate=2.0, cv=0.0).tolist() == [0, 0.5, 1, 1.5]
    assert draw_arrivals(rng(0), "at_once", 3, rate=0.0, cv=0.0).tolist() == [0, 0, 0]
    assert draw_arrivals(rng(0), "poisson", 3, rate=inf, cv=0.0).tolist() == [0, 0, 0]
    assert draw_arrivals(rng(0), "poisson", 1, rate=2.0, cv=0.0).tolist() == [0]


def test_same_pattern_at_every_rate() -> None:
    """Would catch: draws that depend on the rate, which would add noise to a comparison of loads."""
    slow, fast = drawn(rate=1.0).arrival, drawn(rate=8.0).arrival
    assert np.allclose(slow, fast * 8, rtol=1e-12)


def test_uniform_lengths() -> None:
    """Both ends occur; mean and its 99 % interval of a discrete uniform. Would catch: an excluded upper end."""
    tokens = drawn(requests=50_000, input=Lengths("uniform", low=3, high=12)).input_tokens
    assert tokens.min() == 3 and tokens.max() == 12
    assert abs(tokens.mean() - 7.5) < Z99 * sqrt((10**2 - 1) / 12 / len(tokens))


def test_lognormal_lengths() -> None:
    """Mean 700 and cv 0.8 before clipping, inside 99 % intervals (cv: t-interval of 20 replications).

    Would catch: mean and cv taken for the parameters of the logarithm, a median of 700.
    """
    spec = Lengths("lognormal", low=1, high=0, mean=700.0, cv=0.8)
    tokens = drawn(requests=100_000, input=spec).input_tokens
    assert abs(tokens.mean() - 700) < Z99 * 0.8 * 700 / sqrt(len(tokens))
    found = []
    for seed in range(20):
        prompts, _ = draw_lengths(rng(seed), 20_000, spec, FIXED)
        found.append(prompts.std() / prompts.mean())
    low, high = stats.t.interval(0.99, len(found) - 1, loc=np.mean(found), scale=stats.sem(found))
    assert low < 0.8 < high


def test_lognormal_is_clipped() -> None:
    """Both clips bind and tokens stay whole. Would catch: resampling, zero tokens, an overflow of huge draws."""
    tokens = drawn(requests=20_000, input=Lengths("lognormal", low=50, high=400, mean=200.0, cv=2.0)).input_tokens
    assert tokens.min() == 50 and tokens.max() == 400 and tokens.dtype == np.int64
    wild = drawn(requests=5_000, input=Lengths("lognormal", mean=1e9, cv=100.0)).input_tokens
    assert wild.min() >= 1 and wild.max() <= 2**31 - 1
    assert set(drawn(input=Lengths("lognormal", mean=64.0, cv=0.0)).input_tokens.tolist()) == {64}


def test_empirical_rows_stay_together() -> None:
    """Each drawn pair is a row of the trace, and the mean is inside the 99 % interval of the recorded one.

    Would catch: input and output drawn from different rows, draws from the first block only.
    """
    lengths = Lengths("empirical", trace=AZURE)
    recorded = read_trace(AZURE)
    requests = drawn(requests=30_000, input=lengths, output=lengths)
    rows = set(zip(recorded.input_tokens.tolist(), recorded.output_tokens.tolist(), strict=True))
    assert all(p in rows for p in zip(requests.input_tokens.tolist(), requests.output_tokens.tolist(), strict=True))
    error = Z99 * recorded.output_tokens.std() / sqrt(len(requests))
    assert abs(requests.output_tokens.mean() - recorded.output_tokens.mean()) < error
    assert requests.notes == (f"lengths drawn from {AZURE}",) and requests.hash_ids is None


def test_empirical_on_one_side() -> None:
    """Would catch: a joint draw that overrides the other side, a crash where only one side has a trace."""
    requests = drawn(input=Lengths("empirical", trace=str(TRACES / "sample.csv")), output=FIXED)
    assert set(requests.input_tokens.tolist()) == {64, 96, 128, 300, 512, 700, 1024, 2048}
    assert set(requests.output_tokens.tolist()) == {100}


def test_same_seed_same_requests() -> None:
    """Would catch: numpy's global state, hash order."""
    spec: dict[str, Any] = {
        "input": Lengths("lognormal", mean=300.0, cv=1.0),
        "output": Lengths("uniform", low=1, high=9),
    }
    one, other, third = drawn(5, **spec), drawn(5, **spec), drawn(6, **spec)
    assert np.array_equal(one.arrival, other.arrival) and np.array_equal(one.input_tokens, other.input_tokens)
    assert np.array_equal(one.output_tokens, other.output_tokens)
    assert not np.array_equal(one.arrival, third.arrival) and not np.array_equal(one.input_tokens, third.input_tokens)


def test_streams_are_separate_and_prefixes_stable() -> None:
    """Another process leaves the lengths alone; a longer workload starts with the shorter one.

    Would catch: one stream for both, all inputs drawn before all outputs.
    """
    spec: dict[str, Any] = {
        "input": Lengths("lognormal", mean=300.0, cv=1.0),
        "output": Lengths("uniform", low=1, high=9),
    }
    short, long = drawn(**spec, requests=4_500), drawn(**spec, requests=9_000, process="gamma", cv=2.0)
    assert np.array_equal(short.input_tokens, long.input_tokens[:4_500])
    assert np.array_equal(short.output_tokens, long.output_tokens[:4_500])
    assert np.array_equal(short.arrival, drawn(**spec, requests=9_000).arrival[:4_500])


def test_build_reads_a_trace_or_draws() -> None:
    """Would catch: options of the trace not passed on, random numbers taken for a recorded trace."""
    trace = replace(BASE, path=AZURE, process="recorded", limit=20, start=30.0, rate_scale=3.0)
    arrivals, lengths = rng(1), rng(2)
    recorded = build(trace, arrivals, lengths)
    assert np.array_equal(recorded.arrival, read_trace(AZURE, limit=20, start=30.0, rate_scale=3.0).arrival)
    assert arrivals.random() == rng(1).random() and lengths.random() == rng(2).random()
    at_once = build(replace(trace, process="at_once"), arrivals, lengths)
    assert not at_once.arrival.any() and np.array_equal(at_once.input_tokens, recorded.input_tokens)
    assert len(at_once.notes) == 1
    assert np.array_equal(build(BASE, rng(1), rng(1001)).arrival, drawn().arrival)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"process": "poison"},
            "process: 'poison' is not an arrival process; expected one of at_once, constant, gamma",
        ),
        ({"requests": 0}, "requests: 0 found; expected at least 1"),
        ({"rate": 0.0}, "rate: 0.0 requests/s found; expected more than 0"),
        ({"process": "gamma", "cv": 0.0}, "cv: 0.0 found; expected a finite number above 0"),
        ({"input": None}, "input: missing"),
        ({"input": Lengths("fixed", tokens=0)}, "input.tokens: 0 found"),
        ({"output": Lengths("uniform", low=5, high=4)}, "output: low 5 and high 4 found"),
        ({"output": Lengths("uniform", low=0, high=4)}, "output: low 0 and high 4 found"),
        ({"output": Lengths("lognormal", mean=0.0, cv=1.0)}, "output.mean: 0.0 tokens found"),
        ({"output": Lengths("lognormal", mean=1.0, cv=-1.0)}, "output.cv: -1.0 found"),
        ({"output": Lengths("lognormal", mean=1.0, cv=1.0, low=9, high=8)}, "output: clipped to low 9 and high 8"),
        ({"output": Lengths("normal")}, "output.dist: 'normal' is not a length distribution"),
        ({"output": Lengths("empirical", trace="nowhere.csv")}, "nowhere.csv: no such file"),
        ({"path": AZURE, "process": "poison"}, "process: 'poison' is not an arrival process"),
    ],
)
def test_bad_workload(changes: dict[str, Any], message: str) -> None:
    """Would catch: a traceback, an empty workload, a silent default."""
    with pytest.raises(InputError) as caught:
        build(replace(BASE, **changes), rng(1), rng(2))
    assert message in str(caught.value)
