"""Study files: what is wrong is said in one pass, with its line; what is right becomes points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.studies.load import load_study, study_from_dict
from simulator.experiments.studies.points import points, replication_seed
from simulator.scenario import Scenario
from tests.experiments.studies.worlds import base, study

WRONG = """\
name: wrong
base: small.yaml
axes:
  cluster.kv_pool.link.bandwith: [1 GB/s]
  kv.l1: [1 GiB, 2 GBi]
  kv.l2: {from: 1 GiB, to: 2 GiB}
arms:
  one: {prefetch.depht: 2, model: llama-2-7c}
when: kv.l1 <
replications: 0
"""


def said(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as error:
        points(study_from_dict(values))
    return str(error.value)


def test_all_errors_in_one_pass(tmp_path: Path):
    """Would catch: a study refused one mistake at a time, a message without its line or the nearest name."""
    (tmp_path / "small.yaml").write_text(Scenario.from_dict(base(), ".").to_yaml(), encoding="utf-8")
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_study(file)
    text = str(error.value)
    for message in (
        ":4:34  axes.cluster.kv_pool.link.bandwith: 'cluster.kv_pool.link.bandwith' is not a field of a scenario",
        "did you mean 'bandwidth'?", ":5:10  axes.kv.l1: unknown unit 'GBi'", "did you mean 'GB'?",
        ":6:10  axes.kv.l2: a range needs n",
        ":8:25  arms.one.prefetch.depht", "did you mean 'depth'?", "'llama-2-7c' is not in the catalogue", ":9:7  when",
        ":10:15  replications",
    ):  # fmt: skip
        assert message in text, text
    assert text.endswith("7 problems; nothing was run")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"axes": {"seed": [1, 2]}}, "seed is no axis"),
        ({"axes": {"kv.l1.x": [1]}}, "is a single value and has no fields below it"),
        ({"arms": {"a": {"seed": 3}}}, "seed is the same for all arms"),
        ({"combine": "zip", "axes": {"kv.l1": ["1 B"], "kv.l2": ["1 B", "2 B"]}}, "kv.l1 has 1, kv.l2 has 2"),
        ({"combine": "sobol"}, "combine: sobol needs n"),
        ({"n": 5}, "combine: grid does not use n"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        ({"base": 7}, "expected a scenario file or a scenario"),
        ({"base": base(model="llama-2-7c")}, "'llama-2-7c' is not a known model"),
        ({"axis": {}}, "did you mean 'axes'?"),
        ({"until": "fast"}, "expected a number above 0 and at most 1"),
        ({"until": {"precision": "2 %", "metrik": "x"}}, "did you mean 'metric'?"),
        ({"when": "kv.l3 > 1"}, "'kv.l3' is not known here"),
        ({"when": "__import__('os')"}, "are allowed"),
        ({"when": "cluster.kv_pool.link.bandwidth > 1 TB/s"}, "leaves no point"),
        ({"analyses": {"break_even": {"axis": "kv.l9"}}}, "is not an axis of this study"),
        (
            {"analyses": {"break_even": {"axis": "cluster.kv_pool.link.bandwidth", "arms": ["none", "non"]}}},
            "did you mean 'none'?",
        ),
        ({"analyses": {"regime_map": {"x": "kv.l1", "y": "kv.l2"}}, "arms": {}}, "needs two arms"),
        ({"analyses": {"tornado": {"parameters": {"kv.l1": ["2 GiB", "1 GiB"]}}}}, "low below high"),
        ({"analyses": {"elasticity": {"parameters": ["kv.l11"]}}}, "did you mean 'l1'?"),
        ({"search": {}}, "exactly one of capacity, cheapest, front"),
        ({"search": {"capacity": {"rate": "kv.l1", "require": "latency.ttft_s.p99"}}}, "is not a requirement"),
        ({"search": {"front": {"objectives": {}}}}, "found none"),
        ({"metrics": 5}, "expected a list of names"),
    ],
)
def test_wrong_studies(changed: dict[str, Any], message: str):
    """Would catch: a wrong study that runs, or that ends in a traceback."""
    from simulator.experiments.studies.sweep import feasible

    with pytest.raises(InputError) as error:
        feasible(study_from_dict(study(**changed)))
    assert message in str(error.value)


def test_points_of_arms_and_axes():
    """Would catch: arms that are not crossed with axes, an id shared by two points, values written twice run twice."""
    found = points(study_from_dict(study(axes={"cluster.kv_pool.link.bandwidth": ["1 GB/s", "1000 MB/s", "4 GB/s"]})))
    assert [(point.arm, point.si["cluster.kv_pool.link.bandwidth"]) for point in found] == [
        ("next_layer", 1e9), ("none", 1e9), ("next_layer", 4e9), ("none", 4e9),
    ]  # fmt: skip
    assert len({point.id for point in found}) == 4


def test_an_arm_has_the_last_word():
    """GPUs alone ignore the pool's axes: their points differ in name only, so all of them are one run.

    Would catch: axes applied after the arm (a pool without a board), identical points run twice.
    """
    alone = {"cluster.kv_pool": "none", "kv": {}, "prefetch": {}}
    found = points(study_from_dict(study(arms={"pool": {}, "gpu_only": alone})))
    gpu_only = [point for point in found if point.arm == "gpu_only"]
    assert len({point.id for point in gpu_only}) == 2 and len({point.run(0).hash for point in gpu_only}) == 1
    assert all(not point.problem for point in found)
    assert gpu_only[0].resolved.pool is None


def test_common_random_numbers():
    """Would catch: seeds that depend on the point or the order, replications that share a seed, seeds too large for JSON."""
    found = points(study_from_dict(study()))
    seeds = [[point.run(each).seed for each in range(4)] for point in found]
    assert all(row == seeds[0] for row in seeds) and len(set(seeds[0])) == 4 and seeds[0][0] == 5
    assert all(0 <= replication_seed(seed, each) < 2**53 for seed in range(20) for each in range(20))
    assert len({replication_seed(seed, each) for seed in range(50) for each in range(1, 20)}) == 950


def test_when_sees_axes_arms_and_fields():
    """Would catch: a filter that ignores what an arm sets, or a field that is no axis."""
    text = "cluster.kv_pool.link.bandwidth >= 2 GB/s and arm != 'none' and scheduler.max_batch == 8"
    assert [point.arm for point in points(study_from_dict(study(when=text)))] == ["next_layer"]
    assert len(points(study_from_dict(study(when="prefetch.predictor == 'none' or arm == 'next_layer'")))) == 4


def test_run_hash_follows_the_content_of_a_trace(tmp_path: Path):
    """Would catch: old results for a trace that has changed since."""
    trace = tmp_path / "rows.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n", encoding="utf-8")
    values = base()
    values["workload"] = {"trace": {"path": str(trace)}}
    before = points(study_from_dict(study(base=values)))[0].run(0).hash
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,50\n", encoding="utf-8")
    assert points(study_from_dict(study(base=values)))[0].run(0).hash != before
