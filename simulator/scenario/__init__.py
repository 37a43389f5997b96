"""What the user wrote -> one checked, fully resolved scenario.

Reading order: `source` and `yaml_source` (file -> data with places), `overrides` (--set), `presets` (catalogue),
`schema` (what is allowed), `messages` (what to say), `checks` (between sections), `resolve`, `document` (back to YAML).
`Scenario` is imported lazily, so that the engine can use `simulator.scenario.resolved` without loading pydantic.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.scenario.scenario import Scenario as Scenario

__all__ = ["Scenario"]


def __getattr__(name: str) -> Any:
    if name == "Scenario":
        from simulator.scenario.scenario import Scenario

        return Scenario
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
