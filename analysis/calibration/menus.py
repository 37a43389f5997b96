"""Which tiles does a GPU's library of products have? The fit of its products with each menu of `hardware/gemm.py`.

    python -m analysis.calibration.menus NAME FILE_OR_FOLDER ...

Arguments as of `analysis.calibration.gpu`: the same half of the rows is fitted, the other half held back. The menu that leaves
the fitted half the smaller loss is the one to write into the catalogue (`gemm_tiles`). On the tables of Llama-3.1-8B at
TP 1 in the package, loss of the fitted half, and held-back products of 50 us and more (median / p95):

    rtx-pro-6000    warpgroup 0.0602, 2.2 / 11.5 %    warp 0.0303, 1.1 / 5.3 %
    rtx-4090        warpgroup 0.0389, 1.8 /  7.8 %    warp 0.0374, 1.8 / 7.5 %
    a100-80gb-sxm   warpgroup 0.0629, warp 0.0629     (Vidur's products: they do not tell; it has the default)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.calibration.fit import errors, loss
from analysis.calibration.gpu import LONG, STAGES, best, split, thinned

MENUS = ("warpgroup", "warp")  # of `gemm_tiles`


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the products of a GPU with each menu of tiles.")
    parser.add_argument("gpu", metavar="NAME")
    parser.add_argument("data", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    options = parser.parse_args()
    print(json.dumps(menus(options.gpu, options.data), indent=1))


def menus(gpu: str, places: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By menu: the loss of the rows fitted, and errors of those held back."""
    products = STAGES[0]
    used, held = ([sample for sample in half if products.rows(sample)] for half in split(places, False)[:2])
    told, long = thinned(used), [sample for sample in held if sample.truth >= LONG]
    found: dict[str, dict[str, Any]] = {}
    for menu in MENUS:
        values = {"gemm_tiles": menu} | best(gpu, products.fields, told, {"gemm_tiles": menu})
        found[menu] = {"loss": loss(gpu, values, told), "held back": errors(gpu, values, long, "50 us and more")}
    return found


if __name__ == "__main__":
    main()
