"""Horovod's timeline: what each tensor waited for, as a file that chrome://tracing and Perfetto open."""

from __future__ import annotations

from pathlib import Path

from ml_platform.resources.horovod.plan import LaunchPlan

VARIABLE = "HOROVOD_TIMELINE"
NAME = "timeline.json"


def with_timeline(plan: LaunchPlan) -> LaunchPlan:
    """The same launch, in which rank 0 writes a timeline of each job beside its log; the last job's stays."""
    ranks = tuple(
        rank.model_copy(
            update={"environment": {**rank.environment, VARIABLE: str(plan.ranks[0].log_file.parent / NAME)}}
        )
        for rank in plan.ranks
    )
    return plan.model_copy(update={"ranks": ranks})


def timeline_of(plan: LaunchPlan) -> Path | None:
    """The timeline that the last job of a launch left on this machine; None where there is none."""
    named = plan.ranks[0].environment.get(VARIABLE)
    path = Path(named) if named else None
    return path if path is not None and path.is_file() else None
