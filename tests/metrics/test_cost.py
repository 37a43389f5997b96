"""Money, energy, goodput and throughput by hand arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import RunResult
from tests.properties.small import pool, served

ROWS = [(0.0, 40, 11), (0.0, 30, 21), (0.5, 20, 1)]
PRICES = {
    "cluster.gpus": {
        "type": "a100-80gb-sxm", "idle_power": "100 W", "decode_power": "200 W", "prefill_power": "400 W",
        "price": "10000 USD", "rent": "3 USD/h",
    },
    "cost": {
        "years": 4, "utilization": 0.5, "electricity": "0.1 USD/kWh", "pue": 1.25, "host_price": "20000 USD",
        "host_power": "500 W",
    },
}  # fmt: skip
BOARD = {"idle_power": "60 W", "active_power": "160 W", "price": "12000 USD"}
SWITCH = {"type": "cxl-2.0-switch", "power": "75 W", "price": "5800 USD"}
HOURS = 4 * 365 * 24 * 0.5  # of service in which a purchase is paid back


def seconds(result: RunResult) -> float:
    elapsed: float = result.summary["simulation"]["simulated_s"]
    return elapsed


def test_energy_of_gpus_alone():
    """Idle power all the time; the rest by what the steps move and compute, at their full rates; the host all the time. J.

    Steps: one with both prompts, 10 with two decodes, 10 with one, one with the prompt of the last request: 22 with a head
    each, 90 + 30 tokens, 33 rows that emit; the k-th decode reads prompt + k tokens. Attention of prompts is bound by
    compute and counts the seconds it runs: each of these prompts is one tile of 128 rows.
    Would catch: prefill at decode power, power of the idle half second missing, a part counted per request, waits of
    launches and the host above idle power, activations or weights left out.
    """
    rates = {
        "memory_bandwidth": "2000 GB/s", "gemm_bandwidth_efficiency": 0.8, "peak_flops": "300 TFLOP/s",
        "gemm_sustained_efficiency": 0.5, "attention_flops_efficiency": 0.6,
    }  # fmt: skip
    result = served(PRICES | {f"cluster.gpus.{name}": value for name, value in rates.items()}, ROWS)
    layers, steps, tokens, rows, context = 4, 22, 90 + 30, 33, sum(range(41, 51)) + sum(range(31, 51))
    weights = 512 * 256 + 256 * 256 + 1024 * 256 + 256 * 512  # QKV, output projection, gate and up, down
    products = (512 + 256) + (256 + 256) + (1024 + 256) + (256 + 512)  # activations in and out, elements
    element_wise = 8 * 256 + 2 * 512 + 3 * 512
    layer_bytes = 2 * weights * steps + 2 * (products + element_wise) * tokens + 512 * context
    head_bytes = 2 * 1000 * 256 * steps + 2 * (1000 + 256) * rows + 10 * 1000 * rows  # three passes of sampling
    flops = layers * (2 * weights * tokens + 4 * 256 * context) + 2 * 1000 * 256 * rows
    prompts = layers * 4 * 256 * 128 * (40 + 30 + 20) / (0.6 * 300e12)
    streaming, computing = (layers * layer_bytes + head_bytes) / 1600e9, flops / 150e12 + prompts
    gpu = 100 * seconds(result) + (200 - 100) * streaming + (400 - 100) * computing
    host = 500 * seconds(result)
    energy = result.summary["energy"]
    assert energy["gpu_j"] == pytest.approx(gpu, rel=1e-9)
    assert energy["host_j"] == pytest.approx(host, rel=1e-12)
    assert energy["pool_j"] == 0.0
    assert energy["joules_per_output_token"] == pytest.approx((gpu + host) / 33, rel=1e-9)


def test_a_step_draws_no_more_than_the_limit():
    """Streaming at 10 MW would exceed it in every step: 400 W while a step lasts, 100 W between them. Joules.

    Would catch: no limit, one on the mean of the run (the idle half second would be heated too), idle power added to it.
    """
    result = served(PRICES | {"cluster.gpus.decode_power": "10000000 W"}, ROWS)
    columns = result.columns
    stepping = float(columns["finished_s"][1] - columns["arrival_s"][1] + columns["finished_s"][2] - columns["arrival_s"][2])
    assert result.summary["energy"]["gpu_j"] == pytest.approx(100 * seconds(result) + 300 * stepping, rel=1e-9)


def test_purchase_of_gpus_alone():
    """(10,000 + 20,000) USD over 17,520 h of service, and electricity at 1.25 x 0.1 USD/kWh.

    Would catch: years without utilisation, PUE left out, kWh taken for J, cost per request instead of per token.
    """
    result = served(PRICES, ROWS)
    cost, energy = result.summary["cost"], result.summary["energy"]
    kilowatt = (energy["gpu_j"] + energy["host_j"]) / seconds(result) / 1000
    hourly = 30000 / HOURS + kilowatt * 1.25 * 0.1
    assert cost["usd_per_hour"] == pytest.approx(hourly, rel=1e-9)
    assert cost["usd_per_million_output_tokens"] == pytest.approx(hourly * seconds(result) / 3600 / 33 * 1e6, rel=1e-9)


def test_rent_of_gpus_alone():
    """Would catch: electricity or host billed on top of a rent that includes them."""
    cost = served(PRICES | {"cost.basis": "rent"}, ROWS).summary["cost"]
    assert cost["usd_per_hour"] == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("basis", ["purchase", "rent"])
def test_a_pool_costs_boards_memory_and_switch(basis: str):
    """Two boards of 1 GB at 8 USD/GB and 0.5 W/GB, a switch; energy idle + (active - idle) x use of the boards' busiest stage.

    Would catch: memory priced once for both boards, a switch without power, boards forgotten under rent.
    """
    settings = PRICES | pool(4, 100) | {
        "cluster.kv_pool.board": {"type": "agilex-7-speckv", "memory": "1 GB"} | BOARD,
        "cluster.kv_pool.count": 2, "cluster.kv_pool.switch": SWITCH, "cluster.kv_pool.memory_price": "8 USD/GB",
        "cluster.kv_pool.memory_power": "0.5 W/GB",
        "cost.basis": basis,
    }  # fmt: skip
    result = served(settings, ROWS)
    use = max(share for stage, share in result.summary["utilization"].items() if stage.startswith("pool."))
    assert use > 0
    pool_j = (2 * (60 + 100 * use) + 2 * 0.5 + 75) * seconds(result)
    assert result.summary["energy"]["pool_j"] == pytest.approx(pool_j, rel=1e-9)
    cost = result.summary["cost"]
    assert cost["pool_usd_per_hour"] == pytest.approx((2 * 12000 + 2 * 8 + 5800) / HOURS, rel=1e-9)
    billed = pool_j if basis == "rent" else sum(result.summary["energy"][f"{part}_j"] for part in ("gpu", "pool", "host"))
    assert cost["electricity_usd_per_hour"] == pytest.approx(billed / seconds(result) * 3600 / 3.6e6 * 0.125, rel=1e-9)


def test_throughput_by_hand():
    """33 output tokens, 90 prompt tokens, 3 requests; 30 decode tokens over the time of steps without prompts.

    Would catch: first tokens counted as decode, prompts counted as output, time from the first arrival left out.
    """
    result = served({}, ROWS)
    elapsed, throughput = seconds(result), result.summary["throughput"]
    assert elapsed == result.columns["finished_s"].max()
    assert throughput["output_tokens_per_s"] == pytest.approx(33 / elapsed, rel=1e-12)
    assert throughput["total_tokens_per_s"] == pytest.approx((33 + 90) / elapsed, rel=1e-12)
    assert throughput["requests_per_s"] == pytest.approx(3 / elapsed, rel=1e-12)
    decoding = result.columns["finished_s"][1] - result.columns["first_token_s"][1]
    assert throughput["decode_output_tokens_per_s"] == pytest.approx(30 / decoding, rel=1e-9)


def attainment(slo: dict[str, Any], rows: list[tuple[float, int, int]], **settings: Any) -> float | None:
    share: float | None = served({"slo": slo, **settings}, rows).summary["goodput"]["slo_attainment"]
    return share


def test_goodput_counts_requests_within_every_limit():
    """Of all that arrived; one output token has no TPOT to miss; a rejected request is never good.

    Would catch: either limit enough, NaN TPOT taken as missed, rejected ones left out of the denominator, < for <=.
    """
    alone = served({}, ROWS).columns
    exact = {limit: f"{float(np.nanmax(alone[f'{limit}_s']))!r} s" for limit in ("ttft", "tpot")}
    assert attainment(exact, ROWS) == 1.0
    assert attainment(exact | {"tpot": "1 ns"}, ROWS) == pytest.approx(1 / 3)
    assert attainment(exact | {"ttft": "1 ns"}, ROWS) == 0.0
    assert attainment({"tpot": "1 s"}, [*ROWS, (0.6, 5000, 1)]) == pytest.approx(3 / 4)
    assert served({}, ROWS).summary["goodput"] == dict.fromkeys(("requests_per_s", "slo_attainment", "weighted_attainment"))
