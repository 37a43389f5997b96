"""What `speckvsim validate` was asked to compare: the user's file, a recorded run, or all that comes with the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.validation.compare import DEFAULT_GPU, Compared, built_in, compare_file
from analysis.validation.serving import Serving, decode_power, serving
from analysis.validation.vllm import built_in_runs, compare_run
from simulator.errors import InputError, Problem

Table = list[dict[str, Any]]


@dataclass
class Answer:
    """Everything that was compared."""

    tables: list[Table] = field(default_factory=list)  # of rows with the same columns each
    compared: list[Compared] = field(default_factory=list)  # row by row
    notes: list[str] = field(default_factory=list)  # what the reader should know
    serving: Serving | None = None  # the published rows, if they were asked for

    def add(self, found: list[Compared]) -> None:
        self.tables.append([one.summary() for one in found])
        self.compared += found

    def add_run(self, rows: Table) -> None:
        """A recorded run: its table, and as rows the numbers of the whole run."""
        self.tables.append(rows)
        whole = [row for row in rows if row["measured"] is not None]
        self.compared += [
            Compared(row["data_set"], row["metric"], ["run"], np.array([row["model"]]), np.array([row["measured"]]))
            for row in whole
        ]

    def document(self) -> dict[str, Any]:
        rows = [row for table in self.tables for row in table]
        return {"rows": rows} | ({"serving": self.serving.document()} if self.serving else {})


def compared(data: Path | None, vllm: Path | None, gpu: str | None, config: Path | None = None) -> Answer:
    """What was asked for, or all there is."""
    if gpu and not (data or vllm):
        raise InputError(Problem("--gpu", "", "says what GPU the measurements of --data or --vllm are of; there is neither"))
    if config and not data:
        raise InputError(Problem("--model-config", "", "says what model --data was measured on; there is no --data"))
    answer = Answer()
    if data:
        answer.add(compare_file(data, gpu or DEFAULT_GPU, config))
    if vllm:
        rows, answer.notes = compare_run(vllm, gpu)
        answer.add_run(rows)
    if not (data or vllm):
        answer.serving = serving()
        answer.add(built_in())
        answer.add([*answer.serving.compared(), decode_power(answer.serving.outcomes)])
        answer.add_run(built_in_runs())
    return answer
