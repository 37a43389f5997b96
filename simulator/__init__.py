"""speckvsim: a discrete-event simulator of LLM serving with a disaggregated, compressed, prefetched KV-cache.

    from simulator import simulate
    result = simulate("scenarios/quickstart.yaml", set=["kv.l1=8 GiB"])
    result.summary["throughput"], result.requests            # a dict, a DataFrame

    from simulator import step_model, steptime
    steptime(step_model("h100-80gb-sxm", "llama-2-7b"), batch=32, context=2048)["step_s"]

Everything is imported at its first use, so that `import simulator` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from simulator.experiments.run import RunResult as RunResult
    from simulator.experiments.steptime import step_model as step_model
    from simulator.experiments.steptime import step_seconds as step_seconds
    from simulator.experiments.steptime import steptime as steptime
    from simulator.hardware.gpu import StepModel as StepModel
    from simulator.scenario import Scenario as Scenario

__all__ = ["RunResult", "Scenario", "StepModel", "__version__", "simulate", "step_model", "step_seconds", "steptime"]
__version__ = "0.1.0"


def simulate(scenario: str | Path | Scenario, set: Sequence[str] = (), check: bool = False) -> RunResult:
    """Run one scenario, given as a file or already loaded.

    `set` overrides fields (`"kv.l1=8 GiB"`); `check` also checks the invariants and changes no number. Raises
    `simulator.errors.InputError` for a wrong scenario, `simulator.metrics.invariants.InvariantError` for a bug.
    """
    from simulator.experiments.run import run_scenario
    from simulator.scenario import Scenario

    if not isinstance(scenario, Scenario):
        scenario = Scenario.load(scenario, set=set)
    elif set:
        scenario = Scenario.from_dict(scenario.resolved.document, base_dir=".", set=set)
    return run_scenario(scenario, check=check)


def __getattr__(name: str) -> Any:
    if name == "Scenario":
        from simulator.scenario import Scenario

        return Scenario
    if name == "RunResult":
        from simulator.experiments.run import RunResult

        return RunResult
    if name == "StepModel":
        from simulator.hardware.gpu import StepModel

        return StepModel
    if name in ("step_model", "step_seconds", "steptime"):
        from simulator.experiments import steptime

        return getattr(steptime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
