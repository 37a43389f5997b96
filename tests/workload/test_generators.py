"""Arrivals whose rate varies, chats of several turns, the clients of a service: against their definitions."""

from __future__ import annotations

from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.scenario.asked import Chats, Level, Varying
from simulator.scenario.resolved import Lengths
from simulator.workload.arrivals import draw_arrivals
from simulator.workload.chats import chat_requests
from simulator.workload.requests import Floats, Requests
from simulator.workload.servegen import read_clients, superpose
from simulator.workload.stats import trace_stats
from simulator.workload.synthetic import build

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "traces" / "servegen_reason_deepseek-r1.tar.gz"
COUNT = 200_000


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def rates(times: Floats, edges: list[float]) -> list[float]:
    counts, _ = np.histogram(times, edges)
    return [float(count / (high - low)) for count, low, high in zip(counts, edges, edges[1:], strict=False)]


def test_ramp_and_spike_have_the_rates_they_name() -> None:
    """Counts in bins against integrals of the rate; 4 standard deviations of a Poisson count.

    Would catch: the peak in place of the mean, a spike at the wrong time, an inverse that loses the part behind the ramp.
    """
    ramp = draw_arrivals(rng(), "ramp", COUNT, 10.0, 0.0, Varying(peak=50.0, over=1000.0))
    edges = [0.0, 250.0, 500.0, 1000.0, 1500.0, 2000.0]
    for found, expected, width in zip(rates(ramp, edges), (15, 25, 40, 50, 50), np.diff(edges), strict=True):
        assert found == pytest.approx(expected, abs=4 * (expected / width) ** 0.5)
    spike = draw_arrivals(rng(), "spike", COUNT, 10.0, 0.0, Varying(peak=100.0, at=500.0, over=100.0))
    edges = [0.0, 500.0, 600.0, 5000.0]
    for found, expected, width in zip(rates(spike, edges), (10, 100, 10), np.diff(edges), strict=True):
        assert found == pytest.approx(expected, abs=4 * (expected / width) ** 0.5)


def test_a_day_begins_at_night() -> None:
    """Would catch: a phase, radians for periods, a mean that is the peak."""
    day = draw_arrivals(rng(), "diurnal", COUNT, 20.0, 0.0, Varying(amplitude=0.9, period=1000.0))
    edges = [100.0 * step for step in range(11)]
    found = rates(day[day < 1000.0], edges)
    for number, one in enumerate(found):
        middle = 2 * pi * (number + 0.5) / 10
        expected = 20.0 * (1 - 0.9 * cos(middle) * np.sin(pi / 10) / (pi / 10))
        assert one == pytest.approx(expected, abs=4 * (expected / 100.0) ** 0.5)


def test_mmpp_has_the_mean_and_the_dispersion_of_its_states() -> None:
    """Two states of 2 and 38 /s for 9 s and 1 s: mean 5.6 /s. For long bins the index of dispersion tends to

        1 + 2 d^2 p1 p2 tau / mean,   d = 36, p1 p2 = 0.09, 1 / tau = 1/9 + 1   ->  1 + 37.5

    Would catch: states that last as long as their share, constant stays, an order of states that is fixed by name.
    """
    times = draw_arrivals(rng(), "mmpp", COUNT, 5.6, 0.0, Varying(rates=(2.0, 38.0), dwell=(9.0, 1.0)))
    assert COUNT / times[-1] == pytest.approx(5.6, rel=0.05)
    counts = np.bincount((times // 100).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(38.5, rel=0.2)  # of 350 bins: 8 % for a normal variable


def test_a_rate_that_does_not_vary_is_poisson() -> None:
    """Neutral values give the very times of the Poisson process. Would catch: draws that depend on the shape."""
    poisson = draw_arrivals(rng(), "poisson", 1000, 7.0, 0.0)
    for process, varying in (
        ("ramp", Varying(peak=7.0, over=10.0)),
        ("spike", Varying(peak=7.0, at=3.0, over=9.0)),
        ("diurnal", Varying(amplitude=0.0, period=5.0)),
    ):
        assert draw_arrivals(rng(), process, 1000, 7.0, 0.0, varying) == pytest.approx(poisson, rel=1e-12)


CHATS = Chats(turns=4.0, think=30.0, think_cv=0.0, most=4096, prefixes=(Level(100, 2), Level(60, 3)))


def chats(chosen: Chats = CHATS, turns: int = 400) -> Requests:
    starts = np.arange(turns, dtype=np.float64)
    fixed = Lengths("uniform", low=10, high=90)
    return chat_requests(chosen, turns, starts, rng(1), rng(2), fixed, fixed, "test", ())


def test_a_turn_repeats_what_was_said_before() -> None:
    """Would catch: an answer that is left out of the next prompt, a think time before a first turn, ids of another turn."""
    requests = chats()
    loop, ids, further = requests.loop, requests.hash_ids, requests.output_ids
    assert loop is not None and ids is not None and further is not None and len(requests) == 400
    for row in range(len(requests)):
        before = int(loop.after[row])
        prompt, whole = int(requests.input_tokens[row]), int(requests.input_tokens[row] + requests.output_tokens[row])
        assert len(ids[row]) == prompt // 16 and len(ids[row]) + len(further[row]) == whole // 16
        if before < 0:
            assert 160 + 10 <= prompt <= 160 + 90 and loop.delay[row] == 0
            continue
        said = int(requests.input_tokens[before] + requests.output_tokens[before])
        assert said + 10 <= prompt <= said + 90 and loop.delay[row] == 30.0
        chain = [*ids[before].tolist(), *further[before].tolist()]
        assert ids[row].tolist()[: len(chain)] == chain
        assert requests.session is not None and requests.session[row] == requests.session[before]


def test_prefixes_form_a_tree() -> None:
    """100 tokens are 6 full blocks, 160 are 10: sessions share none, 6 or 10, by their path; there are 2 and 6 of these.

    Would catch: a block that straddles two prefixes shared, children of different parents mixed up.
    """
    requests = chats()
    assert requests.loop is not None and requests.hash_ids is not None
    first = [requests.hash_ids[row].tolist()[:11] for row in np.flatnonzero(requests.loop.after < 0)]
    assert {tuple(one[:6]) for one in first} and len({tuple(one[:6]) for one in first}) == 2
    assert len({tuple(one[:10]) for one in first}) == 6 and len({one[10] for one in first if len(one) > 10}) == sum(
        len(one) > 10 for one in first
    )


def test_a_session_ends_at_the_context_of_the_model() -> None:
    """Would catch: turns that no server would take."""
    requests = chats(Chats(50.0, 1.0, 1.0, 500))
    assert int((requests.input_tokens + requests.output_tokens).max()) <= 500 and "ended early" in requests.notes[0]


def test_skewed_children_follow_their_ranks() -> None:
    """1 / rank: of two children the first gets 2/3. Would catch: a skew that is not one."""
    requests = chats(Chats(1.0, 1.0, 1.0, 4096, True, (Level(160, 2),), 1.0), turns=3000)
    assert requests.hash_ids is not None
    heads = [int(requests.hash_ids[row][0]) for row in range(len(requests))]
    assert max(heads.count(one) for one in set(heads)) / 3000 == pytest.approx(2 / 3, abs=4 * (2 / 9 / 3000) ** 0.5)


def test_the_clients_of_a_service_are_read_whole() -> None:
    """All 73 clients of a day against the figures published with the file.

    Would catch: clients or windows skipped, lengths that are not weighted by the rates, empty windows counted as zero tokens.
    """
    stats = trace_stats(CLIENTS)
    assert (stats["clients"], stats["clients_with_lengths"], stats["windows"]) == (73, 73, 144)
    assert stats["rate"] == {"mean": 16.0, "min": 4.3, "max": 42.5} and stats["cv"] == {"mean": 0.53, "rate_weighted": 2.28}
    assert (stats["largest_client_share"], stats["top_ten_share"]) == (0.286, 0.677)
    published = {"prompt_tokens": (4, 1_268, 208, 23_423, 57_284), "output_tokens": (9, 1_527, 792, 12_607, 32_768)}
    for name, figures in published.items():
        assert tuple(round(stats[name][key]) for key in ("min", "mean", "p50", "p99", "max")) == figures


def test_clients_superpose_to_their_rates() -> None:
    """Requests of three hours against the sum of the clients' rates; lengths against their distributions' means.

    Gamma gaps of CV 1.4 on the whole: 4 standard deviations of the count are 4 x 1.4 sqrt(n). Would catch: a rate scaled
    twice, windows of minutes, lengths of another client, a first arrival always at the beginning of a window.
    """
    clients = read_clients(CLIENTS)
    begin, end = 43_200.0, 54_000.0
    drawn = superpose(clients, rng(1), rng(2), begin, end, None, None, "test")
    expected = sum(float(client.rate[(client.start >= begin) & (client.start < end)].sum()) * 600 for client in clients)
    assert len(drawn) == pytest.approx(expected, abs=4 * 1.4 * expected**0.5)
    assert drawn.arrival[0] >= 0 and drawn.arrival[-1] < end - begin
    share = {client.number: float(client.rate[(client.start >= begin) & (client.start < end)].sum()) for client in clients}
    mean = sum(
        share[client.number] * float(np.dot(client.lengths_at(begin)[0].tokens, client.lengths_at(begin)[0].chance))
        for client in clients
    ) / sum(share.values())
    assert float(drawn.input_tokens.mean()) == pytest.approx(mean, rel=0.03)
    scaled = superpose(clients, rng(1), rng(2), begin, end, 0.5, None, "test")
    assert len(scaled) == pytest.approx(0.5 * (end - begin), abs=4 * 1.4 * (0.5 * (end - begin)) ** 0.5)
    assert len(superpose(clients, rng(1), rng(2), begin, end, None, 100, "test")) == 100


BASE: dict[str, Any] = {"name": "t", "model": "llama-3.1-8b", "cluster": {"gpus": {"type": "h100-80gb-sxm"}}}
LENGTH = {"dist": "fixed", "tokens": "32 tokens"}
SESSIONS = {"turns": 3, "think": "5 s", "think_cv": 0.5, "prefixes": [{"tokens": "64 tokens", "count": 2}], "skew": 1.0}
WORKLOADS: dict[str, dict[str, Any]] = {
    process: {"synthetic": {"requests": 50, "arrivals": {"process": process, **values}, "input": LENGTH, "output": LENGTH}}
    for process, values in {
        "diurnal": {"rate": "5 /s", "amplitude": 0.5, "period": "1 h"},
        "ramp": {"rate": "1 /s", "peak": "9 /s", "over": "20 s"},
        "spike": {"rate": "1 /s", "peak": "9 /s", "at": "3 s", "over": "20 s"},
        "mmpp": {"rates": ["1 /s", "9 /s"], "dwell": ["5 s", "1 s"]},
    }.items()
}
WORKLOADS["chats"] = {
    "synthetic": {
        "requests": 50, "arrivals": {"process": "poisson", "rate": "1 /s"}, "input": LENGTH, "output": LENGTH,
        "sessions": SESSIONS,
    }
}  # fmt: skip
WORKLOADS["clients"] = {"clients": {"path": str(CLIENTS), "start": "12 h", "end": "13 h", "rate": "2 /s", "limit": 60}}
WORKLOADS["starts"] = {
    "trace": {
        "path": str(ROOT / "traces" / "agentic_coding_sessions_9.jsonl.gz"), "limit": 40,
        "starts": {"process": "gamma", "rate": "0.01 /s", "cv": 2.0},
    }
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_resolved_workload_is_the_same_again(name: str) -> None:
    """What the resolved document says gives the same requests. Would catch: a field not written down, or in other units."""
    scenario = Scenario.from_dict(BASE | {"workload": WORKLOADS[name]}, ".")
    again = Scenario.from_dict(scenario.resolved.document, ".")
    one, other = (build(each.resolved.workload, rng(1), rng(2)) for each in (scenario, again))
    assert len(one) > 30 and np.array_equal(one.arrival, other.arrival)
    assert np.array_equal(one.input_tokens, other.input_tokens)


REFUSED = {
    "amplitude": ({"process": "poisson", "rate": "1 /s", "amplitude": 0.5}, "process: poisson does not use amplitude"),
    "needs": ({"process": "ramp", "rate": "1 /s"}, "process: ramp needs peak; write for example peak: '20 /s'"),
    "mmpp": ({"process": "mmpp", "rates": ["1 /s"], "dwell": ["1 s"]}, "1 rates and 1 dwell times"),
    "rate": ({"process": "mmpp", "rate": "1 /s", "rates": ["1 /s", "2 /s"], "dwell": ["1 s", "2 s"]}, "does not use rate"),
    "infinite": ({"process": "ramp", "rate": "inf", "peak": "1 /s", "over": "2 s"}, "needs a finite rate"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrivals_that_make_no_sense_are_refused(name: str) -> None:
    """Would catch: a field that is taken and has no effect."""
    arrivals, message = REFUSED[name]
    workload = {"synthetic": {"requests": 5, "arrivals": arrivals, "input": LENGTH, "output": LENGTH}}
    with pytest.raises(InputError, match=message):
        Scenario.from_dict(BASE | {"workload": workload}, ".")


def test_traces_without_times_ask_for_them() -> None:
    """Would catch: sessions that all begin at 0 because nobody said when."""
    workload = {"trace": {"path": str(ROOT / "traces" / "agentic_coding_sessions_9.jsonl.gz")}}
    with pytest.raises(InputError, match="has no arrival times; expected arrivals: at_once, or starts"):
        build(Scenario.from_dict(BASE | {"workload": workload}, ".").resolved.workload, rng(1), rng(2))
