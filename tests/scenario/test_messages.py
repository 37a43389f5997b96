"""What users read when a scenario is wrong: place, field, what was found, what was expected, the nearest name."""

from __future__ import annotations

from copy import deepcopy
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.scenario.yaml_source import read_text

from .conftest import SAMPLE

ONE = "\n1 problem; nothing was run"


def changed(old: str, new: str) -> str:
    assert old in SAMPLE
    return SAMPLE.replace(old, new)


CASES = {
    "misspelt key": (
        changed("max_batch", "max_bacth"),
        "mine.yaml:16:35  scheduler.max_bacth: unknown key\n    did you mean 'max_batch'?",
    ),
    "wrong unit": (
        changed("l1: 12 GiB", "l1: 12 ms"),
        "mine.yaml:14:91  kv.l1: '12 ms' is a time, expected a size such as '12 GiB'",
    ),
    "missing unit": (
        changed("latency: 10 us", "latency: 10"),
        "mine.yaml:15:79  prefetch.latency: 10 has no unit; write for example '10 us'",
    ),
    "a plain number of tokens": (
        changed("512 tokens", "512"),
        "mine.yaml:16:65  scheduler.prefill_chunk: 512 has no unit; write for example '512 tokens'",
    ),
    "duplicate key": (
        changed("seed: 7", "seed: 7\nseed: 8"),
        "mine.yaml:3:1  seed: the key is given twice (first on line 2); remove one",
    ),
    "a list": (
        changed("model: llama-2-70b", "model: [llama-2-70b]"),
        "mine.yaml:5:8  model: expected a mapping with keys such as type, name, layers, hidden; found a list",
    ),
    "zero-capacity link": (
        changed("link: pcie-gen4-x16", "link: {type: pcie-gen4-x16, bandwidth: 0 GB/s}"),
        "mine.yaml:12:44  cluster.kv_pool.link.bandwidth: '0 GB/s': a link needs a bandwidth above 0",
    ),
    "model does not fit": (
        changed("count: 8, tensor_parallel: 8", "count: 1").replace("l1: 12 GiB", "l1: 1 GiB"),
        ("mine.yaml:5:8  model: llama-2-70b does not fit: 128.5 GiB (the weights) + 2.0 GiB reserve per GPU exceed "
        "71.2 GiB (0.9 of 79.2 GiB)\n    more GPUs, a smaller weight_bytes or another GPU"),
    ),
    "tiers do not fit": (
        changed("l1: 12 GiB", "l1: 60 GiB"),
        ("mine.yaml:14:91  kv.l1: l1 60.0 GiB + l2 3.0 GiB per GPU do not fit: 53.2 GiB are left of 71.2 GiB (0.9 of "
        "79.2 GiB) after 16.1 GiB (1/8 of the weights) + 2.0 GiB reserve per GPU"),
    ),
    "not even one burst": (
        changed("l2: 3 GiB", "l2: 1 KiB"),
        ("mine.yaml:14:103  kv.l2: refused: not even one burst fits; l2 is 1 KiB, a burst is 4 KiB\n"
        "    write for example l2: 1 GiB"),
    ),
    "tensor_parallel is not the count": (
        changed("tensor_parallel: 8", "tensor_parallel: 4"),
        ("mine.yaml:8:58  cluster.gpus.tensor_parallel: tensor_parallel 4 is not the count of GPUs (8); one replica "
        "uses all of its GPUs\n    write the same number, or leave tensor_parallel out"),
    ),
    "heads do not divide": (
        changed("count: 8, tensor_parallel: 8", "count: 3"),
        "mine.yaml:8:38  cluster.gpus.count: tensor_parallel 3 does not divide the 64 heads of llama-2-70b",
    ),
    "nothing to route": (
        changed("replicas: 1", "routing: random"),
        "mine.yaml:7:12  cluster.routing: there is one replica, and nothing to route; remove it",
    ),
    "a policy that is not modelled": (
        changed("kv: {", "kv: {topology: {kind: split}, "),
        "mine.yaml:14:23  kv.topology.kind: 'split' is not modelled; the only value so far is 'colocated'",
    ),
    "a choice misspelt": (
        changed("batching: continuous", "batching: continous"),
        ("mine.yaml:16:23  scheduler.batching: 'continous' is not accepted; expected one of: continuous, "
         "decode_first, prefill_first, static\n"
        "    did you mean 'continuous'?"),
    ),
    "coverage above 1": (
        changed("coverage: 0.947", "coverage: 94.7"),
        "mine.yaml:15:46  prefetch.coverage: 94.7 is out of range: expected a number of at least 0 and at most 1",
    ),
    "true is no number": (
        changed("seed: 7", "seed: true"),
        "mine.yaml:2:7  seed: expected a whole number, found true",
    ),
    "a number is no name": (
        changed("name: cxl-speckv-llama2-70b", "name: 12"),
        "mine.yaml:1:7  name: expected text, found 12; put it in quotes: '12'",
    ),
    "no such trace": (
        changed("conv.csv", "con.csv"),
        None,
    ),
    "missing keys": ("name: x\n", "mine.yaml: missing keys: workload, model, cluster"),
    "chunk above budget": (
        changed("512 tokens", "4096 tokens"),
        "mine.yaml:16:65  scheduler.prefill_chunk: 4096 tokens exceed the token_budget of a step (2048 tokens)",
    ),
    "batch above budget": (
        changed("max_batch: 64", "max_batch: 4096"),
        ("mine.yaml:16:46  scheduler.max_batch: max_batch 4096 exceeds the token_budget of a step (2048 tokens)\n"
        "    a step has room for one token of every sequence"),
    ),
    "a preset nobody has": (
        changed("link: pcie-gen4-x16", "link: {latency: 1 us}"),
        ("mine.yaml:12:5  cluster.kv_pool.link: needs a type (the name of a link), or read_bandwidth, write_bandwidth "
        "as well\n    `speckvsim catalog links` lists the names"),
    ),
    "a field the predictor does not use": (
        changed("latency: 10 us, ", "").replace("predictor: statistical, coverage: 0.947, ", "predictor: next_layer, "),
        "mine.yaml:15:45  prefetch.accuracy: the predictor 'next_layer' does not use accuracy; remove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1] is not None])
def test_message(message, name):
    """The exact text: a wrong column, a lost hint or a pydantic phrase in it would show."""
    text, expected = CASES[name]
    assert message(text) == expected + ONE


def test_unknown_preset(message):
    """A typing error in a name finds the nearest entry of the right kind and the command that lists them."""
    found = message(changed("link: pcie-gen4-x16", "link: pcie-gen5x16")).splitlines()
    assert found[0] == "mine.yaml:12:11  cluster.kv_pool.link: 'pcie-gen5x16' is not a known link"
    assert found[1].startswith("    did you mean 'pcie-gen5-x16'?   `speckvsim catalog links` lists all ")


def test_missing_trace(message, folder):
    """The path that was looked for, and the nearest file in its folder."""
    assert message(changed("conv.csv", "con.csv")) == (
        f"mine.yaml:4:17  workload.trace.path: no such trace file: {folder.parent}/traces/con.csv\n"
        "    did you mean 'conv.csv'?" + ONE
    )


def test_several_errors_in_one_pass(message):
    """One run, all problems by line: nobody should fix a file one message at a time."""
    text = changed("seed: 7", "seed: 7\nseed: 8").replace("latency: 10 us", "latency: 10").replace("max_batch", "maxbatch")
    assert message(text, "kv.l2=3 GHz") == (
        "mine.yaml:3:1  seed: the key is given twice (first on line 2); remove one\n"
        "mine.yaml:16:79  prefetch.latency: 10 has no unit; write for example '10 us'\n"
        "mine.yaml:17:35  scheduler.maxbatch: unknown key\n    did you mean 'max_batch'?\n"
        "--set  kv.l2: unknown unit 'GHz'; write for example '12 GiB'\n"
        "4 problems; nothing was run"
    )


def test_several_errors_between_sections(message):
    """The checks between sections report all of theirs, too."""
    found = message(changed("l2: 3 GiB", "l2: 1 KiB").replace("512 tokens", "4096 tokens"))
    assert found.endswith("2 problems; nothing was run") and "kv.l2" in found and "prefill_chunk" in found


SYNTHETIC = "workload={synthetic: {requests: 10, arrivals: %s, input: %s, output: {dist: fixed, tokens: 10 tokens}}}"
FIXED = "{dist: fixed, tokens: 10 tokens}"
POISSON = "{process: poisson, rate: 5 /s}"


@pytest.mark.parametrize(
    ("arrivals", "lengths", "expected"),
    [
        ("{process: poisson, rate: -5 /s}", FIXED,
         "arrivals.rate: '-5 /s' is negative; a request rate must be 0 or more"),
        ("{process: poisson, rate: 0 /s}", FIXED, "arrivals.rate: '0 /s' must be above 0"),
        ("{process: poisson, rate: 5}", FIXED, "arrivals.rate: 5 has no unit; write for example '5 /s'"),
        ("{process: poisson}", FIXED, "arrivals: process: poisson needs a rate; write for example rate: '5 /s'"),
        ("{process: at_once, rate: 5 /s}", FIXED, "arrivals.rate: process: at_once does not use rate; remove it"),
        ("{process: gamma, rate: 5 /s}", FIXED, "arrivals: process: gamma needs cv; write for example cv: 2"),
        ("{process: constant, rate: 5 /s, cv: 1}", FIXED,
         "arrivals.cv: process: constant does not use cv; remove it or write process: gamma"),
        (POISSON, "{dist: fixd, tokens: 10 tokens}",
         ("input.dist: 'fixd' is not accepted; expected one of: fixed, uniform, lognormal, geometric, empirical\n"
         "    did you mean 'fixed'?")),
        (POISSON, "{tokens: 10 tokens}",
         ("input: needs dist: one of fixed, uniform, lognormal, geometric, empirical; "
         "write for example {dist: fixed, tokens: 512 tokens}")),
        (POISSON, "{dist: uniform, low: 10 tokens, high: 5 tokens}",
         "input.high: high is 5 tokens, below low (10 tokens)"),
        (POISSON, "{dist: lognormal, mean: 10 tokens}", "input: missing key: cv"),
        (POISSON, "{dist: fixed, tokens: 10 tokens, cv: 1}",
         "input.cv: unknown key\n    the keys here are: dist, tokens"),
        (POISSON, "{dist: fixed, tokens: 5000 tokens}",
         "input: every request has at least 5010 tokens, more than the model's max_context (4096 tokens)"),
    ],
)  # fmt: skip
def test_synthetic_workloads(message, arrivals, lengths, expected):
    """Distributions are a union by `dist`: its tags must not appear in the field, and unused fields are refused."""
    assert message(SAMPLE, SYNTHETIC % (arrivals, lengths)) == f"--set  workload.synthetic.{expected}{ONE}"


def test_without_a_pool(message):
    """What needs a pool is refused without one: an accepted field that changes nothing would mislead."""
    settings = ("cluster.kv_pool=none", "kv={l2: 1 GiB, burst: 4 KiB, codec: {ratio: 2}}")
    unused = "there is no cluster.kv_pool, so this is not used; remove it or add a pool"
    assert message(SAMPLE, *settings) == (
        f"mine.yaml:15:23  prefetch.predictor: {unused}\n"
        f"--set  kv.l2: {unused}\n--set  kv.codec: {unused}\n--set  kv.burst: {unused}\n4 problems; nothing was run"
    )
    assert message(SAMPLE, "cluster.kv_pool=none") == (
        "mine.yaml:14:14  kv.system: the system 'cxl-speckv' keeps KV in a pool, but there is no cluster.kv_pool\n"
        "    add a kv_pool, or write system: none" + ONE
    )


def places(node: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all sections and values."""
    inner = node.items() if isinstance(node, dict) else ()
    below = [leaf for key, value in inner for leaf in places(value, (*path, key))]
    return [path, *below] if path else below


NUMBERS = [True, -1, 0, 1e300, inf, -inf, nan, 10**400]
SECTIONS = [None, [], {}, {"type": "x"}, {"type": {}}, {"dist": []}, {"kind": "budget"}]
WORDS = ["", "none", "inf", "nan s", "-1 GiB", "1e999 s", "llama-2-7b", "int8", "next_layer", "1 token", "x" * 5000]
JUNK = st.one_of(
    st.sampled_from([*NUMBERS, *SECTIONS, *WORDS]),
    st.text(max_size=5),
    st.floats(),
    st.integers(),
)


@given(st.sampled_from(places(read_text(SAMPLE, "f").data)), JUNK, st.booleans())
@settings(max_examples=150)
def test_junk_anywhere_is_a_problem_or_a_scenario(path, junk, as_text):
    """Whatever stands in the place of a value, the answer is an `InputError` with a place or a scenario."""
    data = deepcopy(read_text(SAMPLE, "f").data)
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = junk
    try:
        if as_text:
            Scenario.from_dict(read_text(SAMPLE, "f").data, "/", [f"{'.'.join(path)}={junk}"])
        else:
            Scenario.from_dict(data, "/")
    except InputError as error:
        assert error.problems and all(problem.where for problem in error.problems)
        assert "pydantic" not in str(error) and "validator" not in str(error)
