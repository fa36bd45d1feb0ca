"""The launch plan: decided, checked and printable before anything starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ml_platform.errors import ResourceStartError, SpecError
from ml_platform.resources import gang_lease, horovod_build
from ml_platform.resources.gang_lease import GangLease
from ml_platform.resources.horovod import open_job, plan_launch
from ml_platform.resources.horovod.plan import ANYWHERE, Place, place_ranks
from ml_platform.resources.horovod_build import Availability
from ml_platform.specs.placements import BudgetSpec, HorovodPlacement, Placement
from ml_platform.specs.resources import HorovodSpec


@pytest.fixture(autouse=True)
def with_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks whether Horovod is there; these tests hold where it is not built."""
    for module in (horovod_build, gang_lease):
        monkeypatch.setattr(module, "horovod_available", lambda: Availability(ok=True, reason="built"))


def test_plan_says_who_runs_where(tmp_path: Path) -> None:
    plan = plan_launch(HorovodSpec(heartbeat_timeout_s=12), HorovodPlacement(ranks=2), tmp_path)
    assert [rank.local_rank for rank in plan.ranks] == [0, 1]
    environment = plan.ranks[1].environment
    assert environment["HOROVOD_RANK"] == "1"
    assert environment["HOROVOD_SIZE"] == "2"
    assert environment["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "12"
    assert environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "127.0.0.1"
    assert environment["KERAS_BACKEND"] == "tensorflow"
    assert plan.ranks[1].command[:3] == (sys.executable, "-m", "ml_platform.worker")
    assert plan.ranks[1].log_file == tmp_path / "rank-1.log"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_threads_of_ranks_are_cores_of_the_budget(tmp_path: Path) -> None:
    placement = Placement(horovod=HorovodPlacement(ranks=4, threads=3), budget=BudgetSpec(cores=8))
    plan = plan_launch(HorovodSpec(), placement.horovod, tmp_path)
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    assert {plan.ranks[0].environment[name] for name in names} == {"3"}
    spec = GangLease.resolve(HorovodSpec(), placement)
    assert (spec.ranks, GangLease.need(spec, placement).cores) == (2, 6)


def test_ranks_of_one_machine_are_neighbours_and_counted_across_machines(tmp_path: Path) -> None:
    """Two machines with two and one ranks: local and cross numbers as Horovod wants them, own interfaces."""
    plan = plan_launch(HorovodSpec(ranks=3, backend="spark"), HorovodPlacement(), tmp_path)
    assert {rank.host for rank in plan.ranks} == {ANYWHERE}
    one = Place(host="one", address="10.0.0.1", interface="eth0")
    two = Place(host="two", address="10.0.0.2", interface="ens5", device="3")
    placed = place_ranks(plan.model_copy(update={"address": "10.0.0.9"}), [one, one, two])
    numbers = ("LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "GLOO_IFACE", "HOSTNAME")
    found = [[rank.environment[f"HOROVOD_{name}"] for name in numbers] for rank in placed.ranks]
    assert found == [
        ["0", "2", "0", "2", "eth0", "10.0.0.1"],
        ["1", "2", "0", "1", "eth0", "10.0.0.1"],
        ["0", "1", "1", "2", "ens5", "10.0.0.2"],
    ]
    assert {rank.environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"] for rank in placed.ranks} == {"10.0.0.9"}
    assert placed.ranks[2].environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in placed.ranks[0].environment
    assert placed.ranks[1].command[-2:] == ("--local-rank", "1")


def test_a_machine_outside_the_network_is_told(tmp_path: Path) -> None:
    elsewhere = HorovodPlacement(network="203.0.113.0/24")
    with pytest.raises(ResourceStartError, match="no address in the network of the job") as caught:
        plan_launch(HorovodSpec(ranks=1, backend="spark"), elsewhere, tmp_path)
    assert caught.value.wanted == "an IPv4 address in 203.0.113.0/24"
    assert "lo 127.0.0.1" in (caught.value.got or "")


def test_plan_can_be_printed_and_stored(tmp_path: Path) -> None:
    plan = plan_launch(HorovodSpec(ranks=2), HorovodPlacement(), tmp_path)
    assert "2 rank(s), backend processes" in str(plan)
    assert f"log {tmp_path / 'rank-1.log'}" in str(plan)
    assert "HOROVOD_RANK=1" in str(plan)
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


def test_ranks_import_what_the_driver_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = plan_launch(HorovodSpec(), HorovodPlacement(), tmp_path)
    assert str(tmp_path) in plan.ranks[0].environment["PYTHONPATH"].split(os.pathsep)


def test_more_ranks_than_one_without_horovod_start_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Availability(ok=False, reason="Horovod is not built; run make setup")
    monkeypatch.setattr(horovod_build, "horovod_available", lambda: missing)
    with (
        pytest.raises(ResourceStartError, match="2 ranks cannot train together here") as caught,
        open_job(HorovodSpec(ranks=2), HorovodPlacement(), log_folder=tmp_path / "logs"),
    ):
        pytest.fail("opened")
    assert caught.value.got == missing.reason
    assert not (tmp_path / "logs").exists()
    assert plan_launch(HorovodSpec(ranks=1), HorovodPlacement(), tmp_path).world_size == 1


def test_in_process_is_one_rank(tmp_path: Path) -> None:
    placement = HorovodPlacement(backend="in_process", ranks=2)
    assert plan_launch(HorovodSpec(), placement, tmp_path).world_size == 1
    with pytest.raises(SpecError, match="in_process backend has one rank"):
        plan_launch(HorovodSpec(ranks=2), placement, tmp_path)


def test_each_rank_gets_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    plan = plan_launch(HorovodSpec(ranks=2), HorovodPlacement(), tmp_path, gpus=2)
    assert [rank.environment["CUDA_VISIBLE_DEVICES"] for rank in plan.ranks] == ["3", "5"]
    with pytest.raises(ResourceStartError, match="3 ranks need a GPU each"):
        plan_launch(HorovodSpec(ranks=3), HorovodPlacement(), tmp_path, gpus=2)
