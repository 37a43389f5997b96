"""Compression: 3.21 = 2 (INT8) x 1.36 (delta) x 1.18 (run lengths), by the reference codec on tensors."""

from __future__ import annotations

from math import prod
from pathlib import Path

from analysis.reproduction.claim import PAPER, REPORTED, Claim, Finding, Regime, largest
from analysis.reproduction.world import TENSORS, Runs
from simulator import codec_stages

AXES = ("token", "channel")
RATIO, STAGES = 3.21, (2, 1.36, 1.18)  # reported


def claims(runs: Runs, rounds: int) -> list[Claim]:
    rows = []
    for name, tensor, synthetic in _tensors():
        for axis in AXES:
            found = codec_stages(tensor, synthetic, 8, axis)
            stages = {row["stage"]: row["ratio"] for row in found.rows()}
            rows.append({"tensor": name, "delta along": axis} | stages | {"bypassed (%)": 100.0 * found.bypassed})
    real = [row for row, (_, tensor, _) in zip(rows, [one for one in _tensors() for _ in AXES]) if tensor is not None]
    bypassed = sum(row["bypassed (%)"] for row in real) / len(real)
    stored = [_ratio(tensor, None) for _, tensor, synthetic in _tensors() if synthetic is None]
    mean = sum(stored) / len(stored)
    normal = _ratio(None, "normal")
    # 1 - rho from 0.1 to 1e-8: the larger it is, the less the values hang together
    power = largest(lambda power: _ratio(None, _chain(power)) >= RATIO, -8.0, -1.0, rounds)
    return [
        Claim(
            "ratio", f"INT8, delta and run lengths compress {RATIO} times", RATIO, "times", f"{PAPER}, Table 9", REPORTED,
            Finding(normal, "their stages on independent normal values, the distribution not being reported"),
            Finding(mean, f"their stages on keys and values of a small transformer on text, mean of {len(stored)} layers"),
            Regime(
                None if power is None else 1.0 - 10.0**power,
                "no first-order chain of values"
                if power is None
                else f"values that follow each other with correlation {1.0 - 10.0**power:.7g}",
            ),
            f"{' x '.join(str(stage) for stage in STAGES)} = {prod(STAGES):.2f}. On keys and values, differences and run "
            f"lengths would make {bypassed:.0f} % of the blocks larger than INT8 with its scales and are bypassed there: equal "
            f"differences in a row, which run lengths live on, are as rare in them as the table shows.",
            tables={"Ratio over fp16 by stage": rows},
        )
    ]  # fmt: skip


def _tensors() -> list[tuple[str, Path | None, str | None]]:
    real: list[tuple[str, Path | None, str | None]] = [
        (f"keys and values, {path.stem.removeprefix('kv_')}", path, None) for path in sorted(TENSORS.glob("kv_layer*.npy"))
    ]
    return [*real, ("normal", None, "normal"), ("chain, 0.99", None, "ar1:0.99"), ("chain, 0.9999", None, "ar1:0.9999")]


def _chain(power: float) -> str:
    return f"ar1:{1.0 - 10.0**power!r}"


def _ratio(tensor: Path | None, synthetic: str | None) -> float:
    """Of the better axis."""
    return max(codec_stages(tensor, synthetic, 8, axis).ratio for axis in AXES)
