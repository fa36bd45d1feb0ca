"""Tasks, dags, graphs and how they run. The only part that imports Prefect."""

from ml_platform.engine.dag import Dag, dag
from ml_platform.engine.graph import Graph
from ml_platform.engine.run import TaskEvent, watching
from ml_platform.engine.task import Task, task

__all__ = ["Dag", "Graph", "Task", "TaskEvent", "dag", "task", "watching"]
