"""The sample of the design: values, sources, defaults, presets."""

from __future__ import annotations

import os
from math import inf

import pytest

from simulator.scenario import Scenario
from simulator.scenario.resolved import Prefetch

from .conftest import SAMPLE


def test_values(load):
    """Units, overrides, dependent defaults; a preset over the user's value or GiB read as GB would show here."""
    resolved = load().resolved
    assert (resolved.seed, resolved.model.layers, resolved.model.kv_heads) == (7, 80, 8)
    assert resolved.gpus.tensor_parallel == 8 and resolved.gpus.gpu.memory == 79.15 * 2**30
    assert resolved.kv.l1 == 12 * 2**30 and resolved.kv.l2 == 3 * 2**30
    codec = resolved.kv.codec
    assert (codec.ratio, codec.compress_at, codec.decompress_at) == (2.0, "fpga", "fpga")
    assert resolved.prefetch == Prefetch("statistical", 4, 0.947, 0.872, 10e-6)
    assert resolved.pool is not None and resolved.pool.switch is not None
    assert (resolved.pool.boards, resolved.pool.switch.uplinks, resolved.pool.links_per_board) == (4, 8, 1)
    assert (resolved.scheduler.token_budget, resolved.scheduler.prefill_chunk) == (2048, 512)
    assert (resolved.slo.ttft, resolved.slo.tpot) == (2.0, 0.05)
    assert resolved.workload.path == os.path.abspath("../traces/conv.csv") and resolved.workload.end == inf


def test_sources(load):
    """Each value says where it came from; a preset's value credited to the file would mislead a reader."""
    sources = load(SAMPLE, "prefetch.depth=2").resolved.sources
    assert sources["kv.l1"] == "mine.yaml:14"
    assert sources["model.name"] == "mine.yaml:5"
    assert sources["prefetch.depth"] == "--set"
    assert sources["scheduler.watermark"] == "default"
    assert sources["cluster.gpus.memory_bandwidth"].startswith("preset a100-80gb-sxm: vendor spec; ")
    assert sources["kv.placement.eviction"].startswith("preset cxl-speckv: published claim; ")
    assert sources["cluster.kv_pool.switch.uplinks"] == "mine.yaml:13"


def test_a_system_preset_is_a_default_under_the_users_values(load):
    """`kv.system` alone brings its tiers, codec and predictor; a preset that wins over the file would change `l1`."""
    text = SAMPLE.replace(", codec: {ratio: 2.0, compress_at: fpga, decompress_at: fpga}, l1: 12 GiB, l2: 3 GiB", ", l1: 8 GiB")
    resolved = load("".join(line for line in text.splitlines(True) if not line.startswith("prefetch"))).resolved
    assert resolved.kv.l1 == 8 * 2**30 and resolved.kv.l2 == 3 * 2**30
    assert resolved.kv.codec.compress_at == "fpga"
    assert resolved.prefetch.predictor == "statistical"


def test_another_predictor_drops_the_presets_fields(load):
    """Coverage of the preset under `next_layer` would be an error the user cannot remove."""
    assert load(SAMPLE, "prefetch={predictor: next_layer}").resolved.prefetch == Prefetch("next_layer", 1, 1.0, 1.0, 0.0)
    assert load(SAMPLE, "prefetch={predictor: none}").resolved.prefetch == Prefetch("none", 0, 0.0, 1.0, 0.0)
    assert load(SAMPLE, "prefetch={predictor: oracle}").resolved.prefetch == Prefetch("oracle", 80, 1.0, 1.0, 0.0)


def test_all_reduce_follows_the_degree(load):
    """The catalogue has collectives by degree; the 8-GPU entry for 2 GPUs, or any for 1, would slow every layer."""
    eight = load().resolved.gpus.gpu
    small = "model=llama-2-7b"
    two = load(SAMPLE, small, "cluster.gpus.count=2", "cluster.gpus.tensor_parallel=2").resolved.gpus.gpu
    one = load(SAMPLE, small, "cluster.gpus.count=1", "cluster.gpus.tensor_parallel=1").resolved.gpus.gpu
    assert two.all_reduce_latency < eight.all_reduce_latency
    assert (one.all_reduce_latency, one.all_reduce_bandwidth) == (0.0, inf)


def test_a_link_by_parts(load):
    """`bandwidth` sets both directions and keeps the preset's latency; a GPU's own link can be changed in part."""
    base = load().resolved.pool.link
    link = load(SAMPLE, "cluster.kv_pool.link={type: pcie-gen4-x16, bandwidth: 10 GB/s}").resolved.pool.link
    assert (link.read_bandwidth, link.write_bandwidth, link.latency) == (10e9, 10e9, base.latency)
    port = load(SAMPLE, "cluster.gpus.link.latency=1 us").resolved.gpus.gpu.link
    assert (port.latency, port.read_bandwidth) == (1e-6, base.read_bandwidth)


def test_more_ranks_than_kv_heads_is_allowed(load):
    """Pages multiply, but it is a valid layout: 16 ranks over 8 KV heads."""
    assert load(SAMPLE, "cluster.gpus.count=16", "cluster.gpus.tensor_parallel=16").resolved.gpus.tensor_parallel == 16


def test_from_dict_is_the_same_as_the_file(load, folder):
    """A study builds scenarios from dicts; they must not differ from the file, and the dict must stay as it was."""
    values = {
        "name": "x",
        "workload": {"trace": {"path": "../traces/conv.csv"}},
        "model": "llama-2-7b",
        "cluster": {"gpus": "a100-80gb-sxm"},
    }
    copy = {**values, "cluster": dict(values["cluster"])}
    text = "name: x\nworkload: {trace: {path: ../traces/conv.csv}}\nmodel: llama-2-7b\ncluster: {gpus: a100-80gb-sxm}\n"
    assert Scenario.from_dict(values, folder).sha256 == load(text).sha256
    assert values == copy


def test_sha256_ignores_folders_but_not_values(load, folder):
    """A run is found again after its folder moved; two scenarios with different values must not share a hash."""
    first = load().sha256
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "conv.csv").write_text("")
    assert load(SAMPLE, "workload.trace.path=../elsewhere/conv.csv").sha256 == first
    assert load(SAMPLE, "seed=8").sha256 != first


@pytest.mark.parametrize("rate", ["inf", ".inf", "'inf'"])
def test_an_infinite_rate_is_all_at_once(load, rate):
    """`inf` is a valid rate: 1/rate must not reach a generator."""
    fixed = "{dist: fixed, tokens: 8 tokens}"
    arrivals = f"{{process: poisson, rate: {rate}}}"
    work = load(
        SAMPLE,
        f"workload={{synthetic: {{requests: one_batch, arrivals: {arrivals}, input: {fixed}, output: {fixed}}}}}",
    ).resolved.workload
    assert (work.process, work.rate, work.requests) == ("at_once", 0.0, 64)
