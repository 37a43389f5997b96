"""What one process does for a study: simulate one scenario, give back plain data, never raise.

The outcome has no wall times but `wall_s`, which stays in the journal: the rows are the same wherever they come from.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

from simulator.scenario import Scenario

Outcome = dict[str, Any]
WALL = ("wall_s", "output_tokens_per_wall_s", "peak_rss_bytes")  # of `simulation`: the machine, not the model


def evaluate(scenario: Scenario) -> Outcome:
    """{status, error, summary, wall_s} of one run; an error of the run is part of the outcome."""
    from simulator.errors import InputError
    from simulator.experiments.run import run_scenario
    from simulator.experiments.store import to_json

    began = time.perf_counter()
    try:
        summary = json.loads(to_json(run_scenario(scenario).summary))
        for key in WALL:
            del summary["simulation"][key]
        del summary["name"], summary["provenance"]["scenario_sha256"]  # of the point, which runs may share
        found: Outcome = {"status": "finished", "error": None, "summary": summary}
    except InputError as error:
        found = failed("; ".join(str(problem) for problem in error.problems))
    except Exception as error:  # whatever a single point does, the others go on
        found = failed(f"{type(error).__name__}: {error}")
    return found | {"wall_s": time.perf_counter() - began}


def failed(error: str) -> Outcome:
    return {"status": "failed", "error": " ".join(error.split()), "summary": None, "wall_s": 0.0}


def begin(parent: int) -> None:
    """At the start of a local worker: leave Ctrl-C to the parent, and end when the parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
