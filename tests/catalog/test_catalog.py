"""The catalogue's data: complete, sourced, in the right dimension, and equal to published shapes."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import yaml

from simulator.catalog import FIELDS, Entry, UnknownName, kinds, load, names
from simulator.catalog.fields import OPTIONAL
from simulator.catalog.loader import ABOUT
from simulator.scenario import resolved
from simulator.units import UNITS, parse

EVIDENCE = {"vendor spec", "measured", "published claim", "assumption", "derived"}
ENTRIES = [(kind, name) for kind in kinds() for name in names(kind) if kind != "kv_systems"]  # those: test_kv_systems.py
EXPECTED = Path(__file__).parent / "models_expected.csv"


def published_models() -> list[dict[str, str]]:
    """Rows of models_expected.csv; the first line says where they are from."""
    return list(csv.DictReader(EXPECTED.read_text().splitlines()[1:]))


def model(entry: Entry) -> resolved.Model:
    tokens = {name: int(parse(str(entry.values[name]), "tokens")) for name in ("max_context", "window") if name in entry.values}
    values = entry.values | tokens
    return resolved.Model(name=entry.name, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_value_has_evidence_and_source(kind: str, name: str) -> None:
    """Catches a number without a source, an unknown kind of evidence, a missing or misspelt field, a bare title."""
    entry = load(kind, name)
    assert entry.title.strip()
    optional = list(OPTIONAL.get(kind, {}))
    assert [field for field in entry.values if field not in optional] == list(FIELDS[kind])
    assert [field for field in entry.values if field in optional] == [field for field in optional if field in entry.values]
    for field, text in entry.sources.items():
        evidence, _, source = text.partition("; ")
        assert evidence in EVIDENCE, f"{field}: {evidence}"
        assert len(source.strip()) >= 4, field


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_value_parses_in_its_dimension(kind: str, name: str) -> None:
    """Catches a price in GB/s, a bare number where a unit is needed, a reference to an entry that does not exist."""
    for field, value in load(kind, name).values.items():
        if kind == "codecs" and field.endswith("_efficiency") and value is None:
            continue  # no kernel of it was measured: the GPU's own rate
        for single in value.values() if isinstance(value, dict) else [value]:
            check((FIELDS[kind] | OPTIONAL.get(kind, {}))[field], single)


def check(dimension: str, value: object) -> None:
    if dimension in UNITS and dimension != "number":
        assert isinstance(value, str)
        parse(value, dimension)
    elif dimension == "number":
        assert isinstance(value, float | int) and not isinstance(value, bool) and value >= 0
    elif dimension == "integer":
        assert type(value) is int and value >= 0
    elif dimension == "flag":
        assert type(value) is bool
    elif dimension == "text":
        assert isinstance(value, str) and value
    else:
        assert value in names(dimension)


def test_fields_are_those_of_the_dataclasses() -> None:
    """Catches a field added to the engine that the catalogue does not fill, or renamed on one side only."""
    for kind, record in {
        "gpus": resolved.Gpu,
        "models": resolved.Model,
        "links": resolved.Link,
        "boards": resolved.Board,
        "switches": resolved.Switch,
        "codecs": resolved.Codec,
        "copy_engines": resolved.CopyEngine,
    }.items():
        of_scenarios = {"weights"} if kind == "switches" else set()  # of the inputs that there are
        known = {*FIELDS[kind], *OPTIONAL.get(kind, {}), *of_scenarios}
        assert known == {f.name for f in dataclasses.fields(record)} - {"name"}
    cost = {field.name for field in dataclasses.fields(resolved.Cost)} - {"basis"}
    assert set(FIELDS["prices"]) == cost | {"memory_price"}
    assert set(FIELDS["memories"]) <= set(FIELDS["boards"])


@pytest.mark.parametrize("row", published_models(), ids=lambda row: row["name"])
def test_models_agree_with_what_is_published(row: dict[str, str]) -> None:
    """KV bytes exactly, parameters within 0.1 % (the published ones are rounded). Catches one wrong shape."""
    shape = model(load("models", row["name"]))
    assert shape.kv_bytes_per_token == float(row["kv_bytes_per_token_fp16"])
    assert shape.parameters == pytest.approx(float(row["params_total_B"]) * 1e9, rel=0.001)
    assert shape.active_parameters == pytest.approx(float(row["params_active_B"]) * 1e9, rel=0.02)
    assert shape.max_context == int(row["max_context_tokens"])


def test_every_model_is_checked() -> None:
    """Catches a model added without its published counterpart; the hypothetical one has its formula instead."""
    assert set(names("models")) - {row["name"] for row in published_models()} == {"llama-2-70b-mha"}


def test_hypothetical_model_has_the_kv_of_the_papers_formula() -> None:
    """2 * layers * hidden * 2 bytes = 2,621,440 a token. Catches grouped queries left in, which give an eighth."""
    shape = model(load("models", "llama-2-70b-mha"))
    assert shape.kv_bytes_per_token == 2 * 80 * 8192 * 2
    assert model(load("models", "llama-2-70b")).kv_bytes_per_token * 8 == shape.kv_bytes_per_token


def test_efficiencies_are_shares_and_powers_are_ordered() -> None:
    """Catches 73 for 0.73, a decode that draws more than prefill, a write faster than the memory.

    Clocks may exceed the datasheet's by a fifth, and element-wise parts may find half of their bytes in L2.
    """
    most = {"gemm_flops_efficiency": 1.2, "gemm_sustained_efficiency": 1.2, "elementwise_bandwidth_efficiency": 2.0}
    for name in names("gpus"):
        gpu = load("gpus", name).values
        shares = [field for field in gpu if field.endswith("efficiency")]
        assert all(0 < float(str(gpu[field])) <= most.get(field, 1.0) for field in shares)
        idle, decode, prefill = (parse(str(gpu[f"{state}_power"]), "power") for state in ("idle", "decode", "prefill"))
        assert idle < decode <= prefill
        assert parse(str(gpu["staging_bandwidth"]), "rate") <= parse(str(gpu["memory_bandwidth"]), "rate")


def test_collectives_cover_the_usual_degrees() -> None:
    """Catches a degree missing in one of the two tables, and a single GPU that pays for an all-reduce."""
    for name in names("gpus"):
        gpu = load("gpus", name).values
        latency, bandwidth = gpu["all_reduce_latency"], gpu["all_reduce_bandwidth"]
        assert isinstance(latency, dict) and isinstance(bandwidth, dict)
        assert list(latency) == list(bandwidth) == [1, 2, 4, 8]
        assert (latency[1], bandwidth[1]) == ("0 s", "inf")


@pytest.mark.parametrize(
    ("kind", "typed", "message", "hint"),
    [
        ("links", "pcie-gen5x16", "'pcie-gen5x16' is not a known link", "did you mean 'pcie-gen5-x16'?"),
        ("gpus", "A100_80GB_SXM", "'A100_80GB_SXM' is not a known GPU", "did you mean 'a100-80gb-sxm'?"),
        ("models", "zzz", "'zzz' is not a known model", "`speckvsim catalog models` lists all"),
        ("switches", "../links/ideal", "is not a known switch", "lists all 3"),
        ("gpu", "h100", "'gpu' is not a kind of catalogue entry", "did you mean 'gpus'?"),
    ],
)
def test_unknown_names_suggest_the_nearest(kind: str, typed: str, message: str, hint: str) -> None:
    """Catches a KeyError instead of a message, suggestions lost to upper case, and names that leave the folder."""
    with pytest.raises(UnknownName) as raised:
        load(kind, typed)
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_files_have_nothing_but_title_and_values() -> None:
    """Catches a key that nothing reads, and a duplicate or stray file in a kind's folder."""
    root = Path(resolved.__file__).parents[1] / "catalog"
    for folder in (path for path in root.iterdir() if path.is_dir() and path.name != "__pycache__"):
        assert folder.name in kinds()
        for path in folder.iterdir():
            assert path.suffix == ".yaml" and path.stem == path.stem.lower() and "_" not in path.stem, path
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            assert set(document) - {*(ABOUT if folder.name == "kv_systems" else ())} == {"title", "values"}
            assert all(set(cell) == {"value", "evidence", "source"} for cell in document["values"].values()), path
