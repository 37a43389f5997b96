"""The GPU's end of the way: its copy engine.

Modelled: per direction one engine that takes descriptors in turn, `setup` seconds each, and moves bytes between port and HBM
at the staging rate. For reads it is the last device of the route (writes into HBM), for write-back the first.
Not modelled: what copies cost the kernels that run beside them (`hardware.interference`).
"""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from simulator.hardware.detailed.device import Burst, Device


@dataclass(frozen=True)
class CopyEngineParameters:
    bandwidth: float  # bytes/s into or out of HBM
    setup: float  # s per descriptor


class CopyEngine(Device):
    def __init__(self, env: simpy.Environment, name: str, spec: CopyEngineParameters, weight: float, buffer: float):
        self.spec = spec
        super().__init__(env, name, spec.bandwidth, weight, 0.0, buffer)

    def service(self, burst: Burst) -> float:
        return burst.descriptors * self.spec.setup + burst.size * self.weight / self.rate
