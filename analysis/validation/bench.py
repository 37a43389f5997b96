"""What a kind of measurement is, and the GPU that its rows are predicted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import inf
from pathlib import Path

from simulator import HostLink, StepModel, host_link, known_model, step_model

PYTHON_ISSUE = 3.9e-6  # s of a copy call of the program that measured; one from C++ is in the catalogue
Row = Mapping[str, str]
NO_COLLECTIVE = {"all_reduce_latency": 0.0, "all_reduce_bandwidth": inf, "all_reduce_switch": 0.0}


class Bench:
    """A GPU to predict for; `values` overrides its fields and `link_values` those of its copy engine (SI), as fits do.

    `config`, a Hugging Face config.json, is the model of the rows whose name the catalogue does not know.
    """

    def __init__(
        self,
        gpu: str,
        values: Mapping[str, float] | None = None,
        link_values: Mapping[str, float] | None = None,
        python_issue: float = PYTHON_ISSUE,
        config: Path | None = None,
    ):
        self.gpu, self.values, self.config = gpu, dict(values or {}), config
        self._link_values, self.python_issue = dict(link_values or {}), python_issue
        self.model = cache(self._model)

    def _model(self, name: str, ranks: int = 1, layers: int | None = None) -> StepModel:
        if self.config is not None and not known_model(name):
            name = str(self.config)
        return step_model(self.gpu, name, ranks, layers, self.values | NO_COLLECTIVE)

    @cached_property
    def link(self) -> HostLink:
        """The GPU's way to host memory."""
        return host_link(self.gpu, self._link_values)

    def of_row(self, row: Row) -> tuple[StepModel, bool]:
        """The step model of a row, and whether its LM head runs."""
        ranks, layers = int(row.get("tp") or 1), int(row.get("layers") or 0)
        whole = self.model(row["model"], ranks)
        model = self.model(row["model"], ranks, layers) if layers and layers != whole.layers else whole
        flag = row.get("has_lm_head") or ""
        return model, model.layers >= whole.layers if flag == "" else flag.strip().lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Kind:
    name: str
    columns: frozenset[str]  # that a file must have
    truth: str  # the measured column
    unit: float  # SI value of 1 in that column
    predict: Callable[[Bench, Row], float]  # SI
    counts: Callable[[Row], bool] = lambda row: True  # rows the model speaks of
    table: bool = False  # of kernels: model and tp may come from the folders
