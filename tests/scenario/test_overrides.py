"""`--set path=value`."""

from __future__ import annotations

import pytest

from .conftest import SAMPLE


def test_good(load):
    """Scalars, whole sections, names and fields below a name; a `--set` applied after the checks would not be seen."""
    resolved = load(
        SAMPLE, "seed=3", "kv.l2=1 GiB", "model.max_context=8192 tokens", "cluster.kv_pool.switch=none",
        "kv.codec=int8", "prefetch={predictor: next_layer, depth: 2}", "cluster.kv_pool.link=pcie-gen5-x16",
    ).resolved  # fmt: skip
    assert (resolved.seed, resolved.kv.l2, resolved.model.max_context) == (3, 2**30, 8192)
    assert resolved.model.name == "llama-2-70b" and resolved.model.layers == 80
    assert resolved.pool.switch is None and resolved.pool.link.name == "pcie-gen5-x16"
    assert (resolved.prefetch.predictor, resolved.prefetch.depth) == ("next_layer", 2)
    assert resolved.sources["kv.codec.ratio"].startswith("preset int8: ")


def test_a_name_replaces_a_section(load):
    """`model=NAME` starts from that model: overrides of the former one must not stay."""
    text = SAMPLE.replace("model: llama-2-70b", "model: {type: llama-2-70b, layers: 40}")
    assert load(text).resolved.model.layers == 40
    assert load(text, "model=llama-2-7b").resolved.model.layers == 32


def test_the_pool_can_be_removed(load):
    """`cluster.kv_pool=none` with the rest that goes with it is the GPU-only arm of a study."""
    resolved = load(SAMPLE, "cluster.kv_pool=none", "kv={}", "prefetch={}").resolved
    assert resolved.pool is None and resolved.kv.l1 is None and resolved.kv.l2 == 0
    assert (resolved.prefetch.predictor, resolved.kv.codec.ratio) == ("none", 1.0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.layer=3", "--set  model.layer: unknown key\n    did you mean 'layers'?"),
        ("schedular.max_batch=3", "--set  schedular: unknown key\n    did you mean 'scheduler'?"),
        ("seed.x=3", "--set  seed.x: 'seed' is a single value and has no fields below it"),
        ("seed", "--set: 'seed' is not of the form path=value; write for example kv.l2='1 GiB'"),
        ("=3", "--set: '=3' is not of the form path=value; write for example kv.l2='1 GiB'"),
        ("kv..l2=3", "--set: 'kv..l2=3' is not of the form path=value; write for example kv.l2='1 GiB'"),
        ("kv.l2=1", "--set  kv.l2: 1 has no unit; write for example '1 GiB'"),
        ("seed='5'", "--set  seed: expected a whole number, found '5'"),
        ("seed=1.5", "--set  seed: expected a whole number, found 1.5"),
        ("kv={l2: 1 GiB, l2: 2 GiB}", "--set  kv: the key is given twice; remove one"),
        ("kv={l2: &a 1 GiB}", "--set  kv: anchors and aliases ('&name', '*name') are not supported; write it out"),
        ("scheduler=", ("--set  scheduler: expected a mapping with keys such as batching, max_batch, token_budget, "
         "prefill_chunk; found nothing")),
    ],
)  # fmt: skip
def test_bad(message, setting, expected):
    """The same words as for a file, with `--set` in the place of the line."""
    assert message(SAMPLE, setting) == expected + "\n1 problem; nothing was run"


def test_all_bad_settings_are_listed(message):
    """Two mistakes on one command line are two problems."""
    assert message(SAMPLE, "nonsense", "foo.bar=1").endswith("2 problems; nothing was run")
