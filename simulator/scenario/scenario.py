"""A scenario: read from a file or a dict, checked, resolved."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simulator.errors import InputError, Problem
from simulator.scenario.document import to_yaml
from simulator.scenario.overrides import apply
from simulator.scenario.resolve import resolve
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.source import Place, Source
from simulator.scenario.yaml_source import read_file

_PATHS = (("path",), ("input", "trace"), ("output", "trace"))  # of traces, in the workload


class Scenario:
    """One checked scenario. `resolved` is what the simulator runs."""

    def __init__(self, resolved: ScenarioResolved):
        self.resolved = resolved

    @classmethod
    def load(cls, path: str | Path, set: Sequence[str] = ()) -> Scenario:
        """Read a scenario file and apply `--set` values (`"kv.l2=1 GiB"`); `InputError` lists all that is wrong."""
        return cls._from(read_file(path), set, os.path.dirname(os.path.abspath(path)))

    @classmethod
    def from_dict(cls, values: dict[str, Any], base_dir: str | Path, set: Sequence[str] = ()) -> Scenario:
        """The same from plain data; relative paths of traces start at `base_dir`. `values` is not changed."""
        source = Source(_copied(values, ()), Place("scenario"))
        for key in source.data:
            source.note((key,), Place("scenario"))
        return cls._from(source, set, str(base_dir))

    @classmethod
    def _from(cls, source: Source, settings: Sequence[str], base_dir: str) -> Scenario:
        apply(source, settings)
        return cls(resolve(source, base_dir))

    def to_yaml(self) -> str:
        """The resolved scenario as a scenario file: every value explicit, paths of traces absolute."""
        return to_yaml(self.resolved.document)

    @property
    def sha256(self) -> str:
        """Of the resolved values as canonical JSON. Of a trace the file name counts, not its folder nor its content."""
        values = asdict(self.resolved)
        del values["sources"], values["document"]
        if not values["faults"]:
            del values["faults"]  # a system that never fails is what it was before faults could be said
        if self.resolved.kv.policies.identity:
            del values["kv"]["policies"]  # and one whose KV policies are the model's own cache
        if not values["cluster"]["groups"]:
            del values["cluster"]  # nor is one replica another one since there may be several
        for *above, last in _PATHS:
            holder = values["workload"]
            for key in above:
                holder = holder[key] or {}
            if holder.get(last):
                holder[last] = os.path.basename(holder[last])
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _copied(value: Any, path: tuple[str, ...]) -> Any:
    """Plain data as our reader gives it; keys must be text."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InputError(Problem("scenario", ".".join(path), f"the key {key!r} is not text"))
        return {key: _copied(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(inner, path) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InputError(Problem("scenario", ".".join(path), f"{value!r} is not plain data (text, number, true/false, dict)"))
