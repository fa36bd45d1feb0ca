"""Would a gang work where Spark put its tasks? Asked before any rank is started; every answer has numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ml_platform.errors import ResourceStartError
from ml_platform.resources.horovod.plan import LaunchPlan
from ml_platform.resources.horovod.stage_task import own_versions
from ml_platform.resources.spark import is_local
from ml_platform.worker.messages import Arrived

TASK_GPUS = "spark.task.resource.gpu.amount"
_ENCRYPTION = ("spark.ssl.enabled", "spark.network.crypto.enabled", "spark.authenticate.enableSaslEncryption")


def check_settings(settings: Mapping[str, str], *, network_is_loopback: bool, unencrypted: bool) -> None:
    """Refuse settings of the application under which a gang would not start, or would surprise.

    Raises:
        ResourceStartError: Dynamic allocation is on; or Spark encrypts its traffic and ranks could not.
    """
    if _is_on(settings, "spark.dynamicAllocation.enabled"):
        raise ResourceStartError(
            "ranks cannot run on this Spark application",
            wanted="a fixed number of executors: all ranks start together or not at all",
            got="spark.dynamicAllocation.enabled=true, with which Spark runs no barrier stage",
            hint="spark.dynamicAllocation.enabled: 'false' and spark.executor.instances in the placement",
        )
    encrypted = [name for name in _ENCRYPTION if _is_on(settings, name)]
    if encrypted and not (network_is_loopback or unencrypted):
        raise ResourceStartError(
            "ranks would send gradients in the clear, and this Spark application encrypts its own traffic",
            got=", ".join(f"{name}=true" for name in encrypted),
            hint="on a trusted network: `horovod.unencrypted: true` in the placement",
        )


def check_gpu_settings(settings: Mapping[str, str], master: str) -> None:
    """Refuse ranks that want a GPU each of an application that gives its tasks none.

    Raises:
        ResourceStartError: With the setting that is missing.
    """
    amount = settings.get(TASK_GPUS)
    if amount is None:
        raise ResourceStartError(
            f"ranks want a GPU each, and Spark gives tasks on {master} none",
            wanted=f"{TASK_GPUS}=1",
            got=f"no {TASK_GPUS}",
            hint="in local mode Spark knows no GPUs: `horovod.backend: processes`"
            if is_local(master)
            else "`spark.gpu: true` in the placement",
        )
    if float(amount) < 1:
        raise ResourceStartError(
            "ranks want a GPU each, and Spark lets tasks share one",
            wanted=f"{TASK_GPUS}=1",
            got=f"{TASK_GPUS}={amount}",
            hint="leave the setting to `spark.gpu: true` in the placement",
        )


def check_slots(ranks: int, slots: int, master: str) -> None:
    """Refuse more ranks than slots.

    Raises:
        ResourceStartError: With the numbers.
    """
    if ranks > slots:
        raise ResourceStartError(
            f"{ranks} ranks cannot start together on {master}",
            wanted=f"{ranks} slots, one per rank",
            got=f"{slots} slots",
            hint="fewer `ranks` in the recipe, or more executors or cores in the placement; on a cluster "
            "another application may have its cores",
        )


def check_arrivals(plan: LaunchPlan, arrivals: Sequence[Arrived]) -> None:
    """Refuse executors on which ranks would fail or disagree.

    Args:
        arrivals: One per rank.
    Raises:
        ResourceStartError: Other versions, a Horovod that does not fit, or too little memory.
    """
    faults = [
        *_version_faults(arrivals),
        *(_horovod_faults(arrivals) if plan.world_size > 1 else ()),
        *_memory_faults(plan, arrivals),
        *(_device_faults(arrivals) if plan.gpu else ()),
    ]
    if faults:
        raise ResourceStartError(
            f"{plan.world_size} ranks cannot train together on these executors; none was started",
            wanted=f"on every executor the driver's versions and {plan.memory_mib_per_rank:,} MiB"
            f"{' and a GPU' if plan.gpu else ''} per rank",
            got=faults[0] if len(faults) == 1 else f"{len(faults)} faults",
            evidence="\n".join(faults),
            hint="`make pack` builds the environment that executors need (docs/clusters.md)",
        )


def _version_faults(arrivals: Sequence[Arrived]) -> list[str]:
    wanted = own_versions()
    found = {
        (arrived.host, name, arrived.versions.get(name, "none"))
        for arrived in arrivals
        for name in wanted
        if arrived.versions.get(name, "none") != wanted[name]
    }
    return [
        f"{host}: {name} {version}, the driver has {wanted[name]}" for host, name, version in sorted(found)
    ]


def _horovod_faults(arrivals: Sequence[Arrived]) -> list[str]:
    return sorted({f"{arrived.host}: {arrived.horovod}" for arrived in arrivals if arrived.horovod})


def _memory_faults(plan: LaunchPlan, arrivals: Sequence[Arrived]) -> list[str]:
    ranks = Counter((arrived.host, arrived.address) for arrived in arrivals)
    free = {(arrived.host, arrived.address): arrived.memory_mib for arrived in arrivals}
    wanted = {key: count * plan.memory_mib_per_rank for key, count in ranks.items()}
    return [
        f"{key[0]}: {free[key]:,} MiB free, {ranks[key]} ranks want {wanted[key]:,} MiB"
        for key in ranks
        if free[key] < wanted[key]
    ]


def _device_faults(arrivals: Sequence[Arrived]) -> list[str]:
    """NCCL refuses two ranks on one device, and names neither."""
    given = Counter(
        (arrived.host, arrived.address, device) for arrived in arrivals for device in arrived.devices
    )
    without = Counter(arrived.host for arrived in arrivals if not arrived.devices)
    return [
        *(f"{host}: {ranks} ranks have no GPU from Spark" for host, ranks in without.items()),
        *(f"{key[0]}: {ranks} ranks share GPU {key[2]}" for key, ranks in given.items() if ranks > 1),
    ]


def _is_on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "false").strip().lower() == "true"
