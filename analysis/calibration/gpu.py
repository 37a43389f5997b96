"""Constants of any GPU of the catalogue from measurements of it.

    python -m analysis.calibration.gpu NAME FILE_OR_FOLDER ... [--all] [--write]

NAME is a file in `simulator/catalog/gpus/`; copy one and fill in the specifications first. Files are csv, gzipped or not, of
the kinds that `speckvsim validate --data` knows (`analysis/validation/kinds.py`): steps and products in the formats of
`analysis/validation/data/*.csv`, or tables of kernel times in folders MODEL/tpN. Folders are searched for them.

Every second row is fitted, the others are held back and reported (`--all`: every row is fitted). Constants are fitted in
stages, each to the rows that tell it; a constant that no row tells stays as it is. `--write` puts them into the catalogue
file, with the hash of the data and the errors, and marks the part as calibrated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from analysis.calibration.catalogue import Fitted, quantity, write
from analysis.calibration.fit import Sample, errors, fit, samples_of
from analysis.validation.kinds import Bench

LONG = 50e-6  # s: shorter kernels weigh less, in proportion
MOST_ROWS = 400  # of a stage
EVALUATIONS = 40  # of a fit
SPREAD = ("median_abs_error_pct", "p95_abs_error_pct")  # their sum picks among fits
_US = (1e-6, "us")
UNITS = {  # ending of a field -> SI value and name of the unit it is written in
    "_bandwidth": (1e9, "GB/s"), "launch": _US, "_wave": _US, "_block": _US, "_latency": _US,
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    name: str
    rows: Callable[[Sample], bool]
    fields: tuple[str, ...]


def _kernel(sample: Sample, *names: str) -> bool:
    return sample.kind.name in ("dense", "per-sequence") and sample.row["layer"] in names


def _is_product(sample: Sample) -> bool:
    return sample.kind.name == "gemm" or _kernel(
        sample, "qkv_proj", "o_proj", "gate_up_proj", "up_proj", "down_proj", "lm_head"
    )


def _is_decode(sample: Sample) -> bool:
    row = sample.row
    return (
        sample.kind.name == "attention" and row["prefill_chunk"] == "0" and int(row["n_decode"]) * int(row["kv_decode"]) > 1024
    )


def _is_paged(sample: Sample) -> bool:
    return sample.kind.name == "attention" and sample.row["prefill_chunk"] != "0"


STEPS = ("decode", "prefill", "mixed", "prefix", "ragged", "offload")
PRODUCTS = (
    "gemm_flops_efficiency", "gemm_bandwidth_efficiency", "gemm_exposed", "gemm_tail", "gemm_wave", "gemm_operand_bandwidth",
    "launch",
)  # fmt: skip
STAGES = (
    Stage("products", _is_product, PRODUCTS),
    Stage("element-wise", lambda s: _kernel(s, "act_fn"), ("elementwise_bandwidth_efficiency",)),
    Stage("decode attention", _is_decode, ("attention_bandwidth_efficiency", "attention_latency")),
    Stage(
        "paged attention", _is_paged,
        ("paged_attention_flops_efficiency", "paged_attention_tile_efficiency", "attention_block"),
    ),
    Stage("decode attention again", _is_decode, ("attention_bandwidth_efficiency", "attention_latency")),
    Stage("unequal decodes", lambda s: s.kind.name == "skew" and s.row["pc"] == "0", ("attention_sequence_bandwidth",)),
    Stage("decode steps", lambda s: s.kind.name in ("decode", "offload"), ("attention_bandwidth_efficiency", "launch")),
    Stage(
        "prefill steps", lambda s: s.kind.name == "prefill",
        ("gemm_sustained_efficiency", "attention_flops_efficiency", "elementwise_bandwidth_efficiency"),
    ),
    Stage("ragged steps", lambda s: s.kind.name == "ragged", ("attention_sequence_bandwidth",)),
    Stage(
        "chunks over a past", lambda s: s.kind.name in ("mixed", "prefix"),
        ("paged_attention_flops_efficiency", "paged_attention_tile_efficiency"),
    ),
)  # fmt: skip
BEGIN = {"gemm_exposed": 0.1, "gemm_tail": 0.5, "gemm_wave": 1e-6, "attention_block": 3e-6, "attention_latency": 4e-6}  # for 0
STARTS: tuple[dict[str, float], ...] = (
    {},
    {"gemm_operand_bandwidth": 0.5, "gemm_wave": 0.3},
    {"gemm_operand_bandwidth": 0.7, "gemm_wave": 3.0},
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the constants of a GPU to measurements of it.")
    parser.add_argument("gpu", metavar="NAME")
    parser.add_argument("data", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--all", action="store_true", help="fit every row, hold none back")
    parser.add_argument("--write", action="store_true", help="put the constants into the catalogue file of the GPU")
    options = parser.parse_args()
    result = calibrate(options.gpu, options.data, options.all)
    print(json.dumps(result, indent=1))
    if options.write:
        path = Path(str(files("simulator.catalog"))) / "gpus" / f"{options.gpu}.yaml"
        write(path, entries(result))


def measured_files(places: Sequence[Path]) -> list[Path]:
    """The csv files among and below the places, sorted."""
    found = [file for place in places for file in (sorted(place.rglob("*.csv*")) if place.is_dir() else [place])]
    return [file for file in found if file.name.endswith((".csv", ".csv.gz"))]


def split(places: Sequence[Path], everything: bool) -> tuple[list[Sample], list[Sample], list[Path]]:
    """Rows that are fitted, those held back, and the files."""
    paths = measured_files(places)
    rows = [(at, sample) for path in paths for at, sample in enumerate(samples_of(path))]
    used = [sample for at, sample in rows if everything or at % 2 == 0]
    return used, [sample for at, sample in rows if not everything and at % 2], paths


def calibrate(gpu: str, places: Sequence[Path], everything: bool = False, **values: float) -> dict[str, Any]:
    """Constants, number of rows and errors of each stage; `values` are known and not fitted."""
    used, held, paths = split(places, everything)
    known, report = dict(values), []
    found: dict[str, float] = {}
    for stage in STAGES:
        told = thinned([sample for sample in used if stage.rows(sample)])
        fields = [field for field in stage.fields if field not in values]
        if len(told) < 2 * len(fields) or not fields:
            continue
        found |= best(gpu, fields, told, known | found)
        if "gemm_flops_efficiency" in fields:  # times alone for less than a millisecond do not show a power limit
            found["gemm_sustained_efficiency"] = found["gemm_flops_efficiency"]
        report.append({"stage": stage.name, "fields": fields, "rows": len(told)})
    kinds = sorted({sample.kind.name for sample in held})
    tests = [(f"{kind}, held back", [s for s in held if s.kind.name == kind]) for kind in kinds]
    tests += [(f"{kind}, held back, 50 us and more", [s for s in part if s.truth >= LONG]) for kind, part in _tables(held)]
    return {
        "gpu": gpu,
        "sha256": sha256(b"".join(path.read_bytes() for path in paths)).hexdigest(),
        "values": found,
        "stages": report,
        "errors": [errors(gpu, known | found, part, what) for what, part in tests if part],
    }


def _tables(held: Sequence[Sample]) -> list[tuple[str, list[Sample]]]:
    names = sorted({sample.kind.name for sample in held if sample.kind.table})
    return [(name, [sample for sample in held if sample.kind.name == name]) for name in names]


def thinned(told: Sequence[Sample]) -> list[Sample]:
    """At most `MOST_ROWS` of the rows, evenly; kernels below 50 us weigh less."""
    chosen = told[:: max(1, -(-len(told) // MOST_ROWS))]
    return [Sample(s.file, s.kind, s.row, s.weight * min(1.0, s.truth / LONG) if s.kind.table else s.weight) for s in chosen]


def best(gpu: str, fields: Sequence[str], told: Sequence[Sample], known: Mapping[str, Any]) -> dict[str, float]:
    """The fit with the least error of those from several starts: products have more than one minimum."""
    device = _device(gpu)
    begin = {field: float(getattr(device, field)) or BEGIN[field] for field in fields}
    tries = [
        fit(
            gpu,
            {field: value * factors.get(field, 1.0) for field, value in begin.items()},
            told,
            known,
            evaluations=EVALUATIONS,
        )
        for factors in (STARTS if "gemm_wave" in fields else STARTS[:1])
    ]
    return min(tries, key=lambda values: sum(float(errors(gpu, dict(known) | values, told, "")[of]) for of in SPREAD))


def _device(gpu: str) -> Any:
    return Bench(gpu).model("llama-2-7b").gpu


def entries(result: Mapping[str, Any]) -> list[Fitted]:
    """What goes into the catalogue file."""
    said = "; ".join(
        f"{row['data_set'].replace(', held back', '')} {row['median_abs_error_pct']:.1f} / {row['p95_abs_error_pct']:.1f} %"
        for row in result["errors"]
    )
    about = f"fitted by analysis/calibration/gpu.py to half of the measurements (sha256 {result['sha256'][:16]}); "
    found = []
    for name, value in result["values"].items():
        scale, unit = next((known for ending, known in UNITS.items() if name.endswith(ending)), (1.0, ""))
        number = quantity(value, scale, unit)
        first = name == next(iter(result["values"]))
        text = f"median / p95 error of the other half: {said}" if first else f"errors under {next(iter(result['values']))}"
        found.append(Fitted(name, number, "derived", about + text))
    return [*found, Fitted("calibrated", "true", "derived", about + "see " + next(iter(result["values"])))]


if __name__ == "__main__":
    main()
