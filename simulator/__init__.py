"""speckvsim: a discrete-event simulator of LLM serving with a disaggregated, compressed, prefetched KV-cache.

    from simulator import simulate
    result = simulate("scenarios/quickstart.yaml", set=["kv.l1=8 GiB"])
    result.summary["throughput"], result.requests            # a dict, a DataFrame

    from simulator import sweep
    sweep("scenarios/studies/l1_size.yaml").table             # a DataFrame, a row per replication

    from simulator import step_model, steptime
    steptime(step_model("h100-80gb-sxm", "llama-2-7b"), batch=32, context=2048)["step_s"]

Everything is imported at its first use, so that `import simulator` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from simulator.codec.stages import stages_of as codec_stages
    from simulator.experiments.host_link import HostLink as HostLink
    from simulator.experiments.host_link import Transfer as Transfer
    from simulator.experiments.host_link import codec_named as codec_named
    from simulator.experiments.host_link import host_link as host_link
    from simulator.experiments.kernels import attention_seconds as attention_seconds
    from simulator.experiments.kernels import expert_seconds as expert_seconds
    from simulator.experiments.kernels import kernel_seconds as kernel_seconds
    from simulator.experiments.recorded import recorded_scenario as recorded_scenario
    from simulator.experiments.run import RunResult as RunResult
    from simulator.experiments.steptime import known_model as known_model
    from simulator.experiments.steptime import step_model as step_model
    from simulator.experiments.steptime import step_seconds as step_seconds
    from simulator.experiments.steptime import steptime as steptime
    from simulator.experiments.studies.sweep import SweepResult as SweepResult
    from simulator.experiments.studies.sweep import sweep as sweep
    from simulator.hardware.gpu import StepModel as StepModel
    from simulator.scenario import Scenario as Scenario
    from simulator.workload.vllm_run import VllmRun as VllmRun

__all__ = [
    "HostLink", "RunResult", "Scenario", "StepModel", "SweepResult", "Transfer", "VllmRun", "__version__",
    "attention_seconds", "codec_named", "codec_stages", "expert_seconds", "host_link", "kernel_seconds", "known_model",
    "recorded_scenario", "simulate", "step_model", "step_seconds", "steptime", "sweep",
]  # fmt: skip
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
    if name in ("sweep", "SweepResult"):
        from simulator.experiments.studies import sweep

        return getattr(sweep, name)
    if name == "StepModel":
        from simulator.hardware.gpu import StepModel

        return StepModel
    if name in ("HostLink", "Transfer", "codec_named", "host_link"):
        from simulator.experiments import host_link

        return getattr(host_link, name)
    if name == "codec_stages":
        from simulator.codec.stages import stages_of

        return stages_of
    if name == "VllmRun":
        from simulator.workload.vllm_run import VllmRun

        return VllmRun
    if name == "recorded_scenario":
        from simulator.experiments.recorded import recorded_scenario

        return recorded_scenario
    if name in ("known_model", "step_model", "step_seconds", "steptime"):
        from simulator.experiments import steptime

        return getattr(steptime, name)
    if name in ("attention_seconds", "expert_seconds", "kernel_seconds"):
        from simulator.experiments import kernels

        return getattr(kernels, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
