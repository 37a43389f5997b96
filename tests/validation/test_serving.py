"""Published serving measurements: the rule of expressibility, the laws of engines, and how far the simulator is off."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from analysis.calibration.serving import used_rows
from analysis.validation.serving import WITHIN, Serving, decode_power, outcome, serving
from analysis.validation.serving_engines import Law, law_of, laws
from analysis.validation.serving_rows import Measurement, rows, sort_out
from analysis.validation.serving_scenarios import predict, run, scenario
from analysis.validation.serving_text import text
from simulator import Scenario, simulate, step_model, step_seconds

TABLE = {row["id"]: row for row in rows()}
EXPRESSIBLE, MISSING = sort_out(TABLE.values())
ROWS = {row.id: row for row in EXPRESSIBLE}


@pytest.fixture(scope="module")
def found() -> Serving:
    return serving()


def test_the_rule_lets_at_least_100_rows_pass() -> None:
    """Every row is either run or listed with what it lacks. Catches rows that fall through."""
    assert len(EXPRESSIBLE) >= 100
    assert set(ROWS) | set(MISSING) == set(TABLE)
    assert not set(ROWS) & set(MISSING)
    assert all(re.match(r"(gpu|model|parallelism|lengths|load|precision|metric): ", lack) for lack in MISSING.values())


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"gpu": ""}, "gpu: not given"),
        ({"gpu": "A100-40TB"}, "gpu: A100-40TB is not in the catalogue"),
        ({"model": "Llama-9"}, "model: Llama-9 is not in the catalogue"),
        ({"tensor_parallel": ""}, "parallelism: not given"),
        ({"n_gpus": "0"}, "parallelism: not given"),
        ({"input_tokens": "ShareGPT"}, "lengths: input_tokens is 'ShareGPT', no number of tokens"),
        ({"output_tokens": "<=128"}, "lengths: output_tokens is '<=128', no number of tokens"),
        ({"batch_or_concurrency": ""}, "load: neither batch nor rate"),
        ({"load_mode": "capacity"}, "load: capacity is no way of loading the simulator has"),
        ({"kv_precision": "fp3"}, "precision: kv_precision is fp3"),
        ({"metric": "kv_capacity_tokens"}, "metric: kv_capacity_tokens is nothing a run reports"),
    ],
)
def test_what_a_row_must_have(change: dict[str, str], lack: str) -> None:
    """Catches a field that the rule does not ask for, and one taken for another."""
    row = TABLE["S002"] | change
    assert sort_out([row]) == ([], {"S002": lack})


def test_queued_requests_are_an_infinite_rate() -> None:
    """`offline_max` without a rate means all requests queued. Catches those rows called without load."""
    assert ROWS["S066"].rate == float("inf")
    assert ROWS["S066"].batch == 0


def test_no_row_is_left_out_silently(found: Serving) -> None:
    """Catches an outcome without a number or a refusal, and a row outside 15 % without a reason."""
    assert [one.row.id for one in found.outcomes] == list(ROWS)
    assert all((one.model is None) == bool(one.refusal) for one in found.outcomes)
    outside = found.outside()
    assert {row["row"] for row in outside} == {one.row.id for one in found.outcomes if not one.within}
    assert not [row["row"] for row in outside if row["reason"] == "not known"]
    assert sum(len(one.rows) + one.left_out for one in found.compared()) == len(ROWS)
    assert set(found.reasons) <= set(TABLE)


def test_the_text_has_all_of_it(found: Serving) -> None:
    """Catches a part that is computed and not printed."""
    printed = text(found, str)
    assert f"{len(ROWS)} expressible and run" in printed
    assert all(row["row"] in printed and row["reason"] in printed for row in found.outside())
    assert all(name in printed and lack in printed for name, lack in found.missing.items())


def test_rows_not_used_in_a_fit(found: Serving) -> None:
    """Of the rows held back at least 80 % are within 15 %. Catches a worse step model, KV capacity or batching."""
    held = [one for one in found.outcomes if not one.fitted]
    assert len(held) >= 60
    assert sum(one.within for one in held) / len(held) >= 0.8


def test_fitted_rows_are_those_of_the_rule() -> None:
    """Half of a family, by the order of the table. Catches rows moved from the held-back half into the fit."""
    among = laws()
    for law in among:
        family = [row for row in EXPRESSIBLE if law_of(row.engine, row.gpu, among) is law]
        expected = {row.id for row in used_rows(family)} if law.fit else set()
        assert law.fitted_rows == expected, law.name
        assert len(expected) <= 0.6 * len(family)


def test_laws_have_few_parameters() -> None:
    """Catches a law with as many constants as rows, and a constant for each row."""
    assert all(len(law.fit) <= 4 and len(law.fitted_rows) >= 2 * len(law.fit) for law in laws() if law.fit)


def test_host_time_by_hand() -> None:
    """80 layers of 0.5 ms take 40 ms: 10 ms more than a GPU step of 30 ms, hidden behind one of 50 ms."""
    law = Law(step=1e-3, per_sequence=0.1e-3, prefill=0.01e-3, dispatch=0.5e-3)
    assert law.host(0.030, 8, False, 80) == pytest.approx(1e-3 + 0.8e-3 + 10e-3)
    assert law.host(0.050, 8, False, 80) == pytest.approx(1e-3 + 0.8e-3)
    assert law.host(0.050, 0, True, 80) == pytest.approx(1e-3 + 0.8e-3)


def test_query_heads_that_read_for_themselves_by_hand() -> None:
    """8 query heads a KV head read 8 times what the KV needs, at a rate an SM; MHA at that rate is bound by HBM.

    Catches the group size taken the wrong way round, and a kernel that is faster than HBM.
    """
    gqa, mha = step_model("a100-80gb-sxm", "llama-2-70b"), step_model("a100-80gb-sxm", "llama-2-7b")
    law = Law(kv_elements=20e9)
    delivered = gqa.gpu.attention_bandwidth_efficiency * gqa.gpu.memory_bandwidth / 2  # elements of fp16
    assert law.reads(gqa) == pytest.approx(8 * delivered / (20e9 * 108))
    assert law.reads(mha) == 1.0
    assert Law().reads(gqa) == 1.0


def _row(**changes: object) -> Measurement:
    return replace(ROWS["S004"], engine="none", id="X", **changes)  # type: ignore[arg-type]


def test_static_batch_by_hand() -> None:
    """A batch's TTFT is its prefill step, its TPOT the mean decode step. Catches host time that is lost or counted twice."""
    step = step_model("a100-80gb-sxm", "llama-2-70b", 4)
    law = Law(step=5e-3)
    ttft = predict(_row(metric="ttft_ms", batch=4), law)
    assert ttft == pytest.approx(1e3 * (5e-3 + step_seconds(step, pieces=[(512, 0)] * 4)), rel=1e-6)
    one_by_one = predict(_row(metric="ttft_ms", batch=4), replace(law, one_prompt_a_step=True))
    assert one_by_one == pytest.approx(4e3 * (5e-3 + step_seconds(step, pieces=[(512, 0)])), rel=1e-6)
    decodes = [step_seconds(step, [context]) for context in range(513, 513 + 127)]
    assert predict(_row(), law) == pytest.approx(5.0 + 1e3 * sum(decodes) / 127, rel=1e-6)


def test_closed_loop_is_what_a_client_sees() -> None:
    """Two clients without think time: TTFT has no wait in the queue, whatever the number of turns.

    Catches a closed loop whose latencies grow with the number of requests.
    """
    row = _row(mode="closed_loop", batch=2, metric="ttft_ms")
    alone = predict(_row(metric="ttft_ms", batch=1), Law())
    assert alone <= predict(row, Law()) <= 2.2 * alone
    assert predict(replace(row, metric="e2e_ms"), Law()) < 1.2 * (alone + 127 * predict(replace(row, metric="tpot_ms"), Law()))


def test_scenarios_are_scenarios() -> None:
    """What a row is run as can be run by anyone. Catches numbers that only the validation knows."""
    row = ROWS["S004"]
    law = law_of(row.engine, row.gpu, laws())
    again = simulate(Scenario.from_dict(scenario(row, law), base_dir=".")).summary
    assert 1e3 * again["latency"]["tpot_s"]["mean"] == pytest.approx(predict(row, law), rel=1e-12)


def test_refused_rows_count_as_outside() -> None:
    """Weights that do not fit are no bug and no success."""
    refused = outcome(ROWS["S105"], Law())
    assert refused.model is None and not refused.within
    assert refused.refusal.startswith("refused: ")


def test_decode_power_is_of_decode_alone(found: Serving) -> None:
    """Power between idle and the limit, growing with how busy HBM is. Catches prefill counted in, and GPUs counted twice."""
    power = decode_power(found.outcomes)
    share = dict(zip(power.rows, power.model.tolist()))
    assert len(share) >= 10
    assert all(0.2 < one < 1.0 for one in share.values())
    assert share["S016"] < share["S004"]  # the same model on 8 GPUs: each streams half as much


def test_runs_are_shared_by_the_rows_that_report_on_them() -> None:
    """Catches a run for each row: the whole table would take twice as long."""
    law = Law()
    assert run(_row(metric="e2e_ms"), law) is run(_row(metric="tpot_ms"), law)
    assert WITHIN == 15.0
