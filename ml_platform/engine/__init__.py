"""Tasks, dags, graphs, plans and how they run. The only part that imports Prefect."""

from ml_platform.engine.dag import Dag, dag
from ml_platform.engine.declare import either, map_over, when
from ml_platform.engine.drill import crash_drill
from ml_platform.engine.events import TaskEvent, watching
from ml_platform.engine.graph import Graph
from ml_platform.engine.plan import EngineSpec, Plan
from ml_platform.engine.task import Task, task

__all__ = [
    "Dag",
    "EngineSpec",
    "Graph",
    "Plan",
    "Task",
    "TaskEvent",
    "crash_drill",
    "dag",
    "either",
    "map_over",
    "task",
    "watching",
    "when",
]
