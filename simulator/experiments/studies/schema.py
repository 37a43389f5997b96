"""The study file as users write it (design section 6), one section at a time.

    name, base            base: a scenario file, relative to the study, or a scenario written inline
    axes, combine, n      axes: {path: [values] | {from, to, n, scale}}; combine: grid, zip, random, lhs, sobol
    arms                  {name: {path: value}}; an arm is applied after the axes, so `cluster.kv_pool: none` may undo them
    when                  keeps the points for which an expression over axes and fields is true
    replications, until   until: 2 %, or {precision, metric, most}
    metrics               columns of the table on the terminal
    analyses              what to conclude from the rows; some need runs of their own
    search                one of capacity, cheapest, front (`speckvsim search`)

Axes and arms hold scenario fields, which only `load` can check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue

from simulator.scenario.parts import Label, Section, default
from simulator.scenario.quantities import Count, Number, Text, refuse, shown

THROUGHPUT = "throughput.output_tokens_per_s"
METRICS = (THROUGHPUT, "latency.ttft_s.p99", "latency.tpot_s.mean", "cost.usd_per_million_output_tokens")


@dataclass(frozen=True)
class Percent(Number):
    """A share, written `2 %` or `0.02`."""

    above: float = 0.0
    most: float = 1.0

    def read(self, value: Any) -> float:
        if isinstance(value, str) and value.strip().endswith("%"):
            try:
                value = float(value.strip().removesuffix("%")) / 100
            except ValueError:
                raise refuse(f"{shown(value)} is not a percentage; write for example '2 %'") from None
        return super().read(value)

    def json_schema(self) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "examples": ["2 %"]}, super().json_schema()]}


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise refuse(f"expected a list of names, found {shown(value)}")
    return tuple(names)


def _ranges(value: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(value, dict) or not value:
        raise refuse(f"expected {{path: [low, high]}}, found {shown(value)}")
    for path, ends in value.items():
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise refuse(f"expected [low, high], found {shown(ends)}", at=(path,))
    return {path: (ends[0], ends[1]) for path, ends in value.items()}


_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_ENDS = {"type": "object", "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2}}
Precision = Annotated[float, Percent()]
NameList = Annotated[tuple[str, ...], PlainValidator(_names), WithJsonSchema(_LIST)]
RangeMap = Annotated[dict[str, tuple[Any, Any]], PlainValidator(_ranges), WithJsonSchema(_ENDS)]
Better = Literal["higher", "lower"]


class Until(Section):
    """Replications until the half-width of the 95 % interval is this share of the mean, at every point."""

    precision: Precision
    metric: Label = THROUGHPUT
    most: Annotated[int, Count(2)] = 100


class Elasticity(Section):
    """Percent change of a metric per percent change of a parameter, around the base of each arm."""

    parameters: NameList
    metrics: NameList = (THROUGHPUT,)
    step: Precision = default("5 %", "up and down")


class Tornado(Section):
    """Each parameter at its low and its high end, all others at the base."""

    parameters: RangeMap
    metrics: NameList = (THROUGHPUT,)


class Morris(Section):
    """Mean and spread of elementary effects over a range (Morris 1991, with |effects| as Campolongo 2007)."""

    parameters: RangeMap
    metrics: NameList = (THROUGHPUT,)
    trajectories: Annotated[int, Count(2)] = 10
    levels: Annotated[int, Count(2)] = 4


class SobolIndices(Section):
    """First-order and total shares of the variance over a range (Saltelli 2010)."""

    parameters: RangeMap
    metrics: NameList = (THROUGHPUT,)
    n: Annotated[int, Count(2)] = default(64, "runs: n (parameters + 2); a power of 2 spreads best")


class BreakEven(Section):
    """The value of one numeric axis from which the first arm beats the second."""

    axis: Label
    arms: NameList | None = default(None, "two; default: the first two of the study")
    metric: Label = THROUGHPUT
    better: Better = "higher"
    tolerance: Precision = default("1 %", "of the value; narrower brackets are not sought")


class Trend(Section):
    """Along one axis: the ends, the best value, and the nearest value that is as good within a margin."""

    axis: Label
    metric: Label = THROUGHPUT
    better: Better = "higher"
    within: Precision = default("5 %", "of the best")


class RegimeMap(Section):
    """Which arm is best at each pair of values of two axes."""

    x: Label
    y: Label
    metric: Label = THROUGHPUT
    better: Better = "higher"


class Versus(Section):
    """Every other arm against one, over all points and replications in pairs."""

    arm: Label = Field(description="the arm to compare with")
    metric: Label = THROUGHPUT


class Analyses(Section):
    elasticity: Elasticity | None = None
    tornado: Tornado | None = None
    morris: Morris | None = None
    sobol: SobolIndices | None = None
    break_even: BreakEven | None = None
    trend: Trend | None = None
    regime_map: RegimeMap | None = None
    versus: Versus | None = None


class Capacity(Section):
    """The largest value of a rate that meets every requirement, for each point and arm."""

    rate: Label = Field(description="a numeric field of the scenario, such as workload.synthetic.arrivals.rate")
    require: NameList = Field(description="expressions over summary keys: 'latency.ttft_s.p99 <= 2 s'")
    low: Any = default(None, "where the search begins; default: the base's value, halved until it is met")
    high: Any = default(None, "default: low, doubled until it is not met")
    tolerance: Precision = default("2 %", "of the rate")
    most: Annotated[int, Count(2)] = default(20, "replications at one rate")
    budget: Annotated[int, Count(1)] = default(400, "runs per point and arm")


class Cheapest(Section):
    """The cheapest point of the study that meets every requirement."""

    require: NameList
    cost: Label = "cost.usd_per_hour"
    budget: Annotated[int, Count(1)] = default(1000, "runs")


class Front(Section):
    """Designs that no other design beats in every objective (extra `explore`)."""

    objectives: dict[str, Literal["min", "max"]]
    require: NameList | None = None
    budget: Annotated[int, Count(1)] = default(64, "designs that are tried")

    @model_validator(mode="after")
    def _some(self) -> Front:
        if not self.objectives:
            raise refuse("expected {summary key: min | max}, found none", at=("objectives",))
        return self


class Search(Section):
    """Exactly one of the three."""

    capacity: Capacity | None = None
    cheapest: Cheapest | None = None
    front: Front | None = None

    @model_validator(mode="after")
    def _one(self) -> Search:
        if sum(kind is not None for kind in (self.capacity, self.cheapest, self.front)) != 1:
            raise refuse("expected exactly one of capacity, cheapest, front")
        return self


def _until(value: Any) -> Any:
    return value if isinstance(value, dict) else {"precision": value}


class StudyFile(Section):
    """A study of speckvsim: many runs of one scenario."""

    name: Annotated[str, Text(("l1_size",))]
    base: Any = Field(description="a scenario file, relative to this one, or a scenario")
    axes: dict[str, Any] = default({}, "scenario field -> [values] or {from, to, n, scale: linear | log}")
    combine: Literal["grid", "zip", "random", "lhs", "sobol"] = "grid"
    n: Annotated[int, Count(1)] | None = default(None, "points of random, lhs, sobol")
    arms: dict[str, dict[str, Any]] = default({}, "name -> {scenario field: value}, applied after the axes")
    when: Label | None = default(None, "such as 'kv.l1 + kv.l2 <= 8 GiB and arm != \"gpu_only\"'")
    replications: Annotated[int, Count(1)] = 1
    until: Annotated[Until, BeforeValidator(_until)] | None = None
    seed: Annotated[int, Count(0)] | None = default(None, "default: the base's")
    metrics: NameList = METRICS
    analyses: Analyses = Analyses()
    search: Search | None = None

    @model_validator(mode="after")
    def _samples(self) -> StudyFile:
        sampled = self.combine in ("random", "lhs", "sobol")
        if sampled and self.n is None:
            raise refuse(f"combine: {self.combine} needs n, the number of points")
        if not sampled and self.n is not None:
            raise refuse(f"combine: {self.combine} does not use n; remove it", at=("n",))
        return self


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors."""
    schema = StudyFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "speckvsim study"
    return schema
