"""`kv.codec: {ratio: measured, measure: {...}}`: the ratio that the reference codec reaches on a tensor.

    measure: {tensors: FILE.npy, bits: 8, axis: token}       the path is relative to the scenario file
    measure: {synthetic: "ar1:0.99"}                         a named distribution (`simulator/codec/tensors.py`)

The tensor is coded in blocks of the scenario's block size; headers and scales count. The number takes the place of the
word, and its source says what was measured, so that the resolved scenario runs without the file.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.scenario.quantities import Tokens
from simulator.scenario.source import Place, Source, Where

RATIO: Where = ("kv", "codec", "ratio")
MEASURE: Where = ("kv", "codec", "measure")
BITS, AXES = (8, 4, 2), ("token", "channel")
UNTIL_KNOWN = 1.0  # takes the word's place where its input is wrong, so that the schema speaks of the input alone


def measure_ratio(source: Source, base_dir: str) -> None:
    """Put the measured ratio where the scenario asks for it; problems go to `source`."""
    asked, settings = source.get(RATIO) == "measured", source.get(MEASURE)
    if asked and settings is None:
        message = "measured needs measure; write for example measure: {tensors: kv.npy} or measure: {synthetic: normal}"
        source.problems.append(source.problem(RATIO, message))
    elif settings is not None and not asked:
        source.problems.append(source.problem(MEASURE, "is used only with ratio: measured", key=True))
    if not asked:
        return
    found = _measured(source, settings, base_dir) if isinstance(settings, dict) else None
    ratio, text = found or (UNTIL_KNOWN, "")
    source.put(RATIO, ratio, Place(text, preset=True))


def _measured(source: Source, settings: dict[str, Any], base_dir: str) -> tuple[float, str] | None:
    """The ratio and what it was measured on; None where the schema will complain or a problem was noted."""
    file, name = settings.get("tensors"), settings.get("synthetic")
    bits, axis, given = settings.get("bits", 8), settings.get("axis", "token"), file if name is None else name
    if (file is None) == (name is None) or not isinstance(given, str) or bits not in BITS or axis not in AXES:
        return None
    from simulator.codec.codec import Format
    from simulator.codec.stages import measure
    from simulator.codec.tensors import load, scale_group, synthetic

    try:
        if file is not None:
            path = Path(base_dir, file)
            tensor, what = load(path), f"{file}, sha256 {sha256(path.read_bytes()).hexdigest()[:16]}"
        else:
            tensor, what = synthetic(given, where=""), f"synthetic {name}"
    except InputError as error:
        at = (*MEASURE, "synthetic" if file is None else "tensors")
        source.problems += [source.problem(at, f"{p.where} {p.message}".strip(), p.hint) for p in error.problems]
        return None
    stages = measure(tensor, Format(bits, axis, scale_group(tensor.shape[-1]), _block_tokens(source)))
    return stages.ratio, f"measured: reference codec, INT{bits} with delta along the {axis} axis, on {what}"


def _block_tokens(source: Source) -> int:
    """The scenario's block size, or its default where that is wrong or not given."""
    value = source.get(("kv", "block"))
    try:
        return 16 if value is None else Tokens().read(value)
    except ValueError:
        return 16
