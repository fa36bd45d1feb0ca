"""Prefect's own cache policies, for the same edits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from prefect import Task
from prefect.cache_policies import DEFAULT, INPUTS, TASK_SOURCE

POLICIES = {
    "INPUTS + TASK_SOURCE": INPUTS + TASK_SOURCE,
    "INPUTS": INPUTS,
    "TASK_SOURCE": TASK_SOURCE,
    "DEFAULT": DEFAULT,
}
CLOSEST = "INPUTS + TASK_SOURCE"
"""The one that knows the most and is no stranger to other runs, as `DEFAULT` is."""


def prefect_keys(body: Task[..., Any], inputs: dict[str, Any]) -> dict[str, str | None]:
    """By policy: the key of a call in a run of its own, as Prefect's own task engine asks for it."""
    context: Any = SimpleNamespace(task=body, task_run=SimpleNamespace(flow_run_id=uuid4()))
    return {name: policy.compute_key(context, inputs, {}) for name, policy in POLICIES.items()}
