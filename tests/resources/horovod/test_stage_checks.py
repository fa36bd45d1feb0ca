"""What is found out about executors before a rank is started: with numbers, and for every fault at once."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources.gang_lease import GangLease
from ml_platform.resources.horovod import open_job, plan_launch, spark_stage
from ml_platform.resources.horovod.spark_stage import check_reach
from ml_platform.resources.horovod.stage_checks import check_arrivals, check_settings
from ml_platform.resources.horovod.stage_task import own_versions
from ml_platform.resources.leases import Leases, Scope
from ml_platform.specs.placements import HorovodPlacement, Placement, SparkPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.worker import messages
from ml_platform.worker.channel import Channel
from ml_platform.worker.keeper import reached
from ml_platform.worker.messages import Arrived


def arrived(host: str, **changes: object) -> Arrived:
    facts = {"versions": own_versions(), "horovod": "", "memory_mib": 4096, **changes}
    return Arrived(host=host, address="127.0.0.1", interface="lo", **facts)  # type: ignore[arg-type]


def test_every_fault_is_named_with_its_host_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_launch(HorovodSpec(ranks=1, backend="spark"), HorovodPlacement(), tmp_path)
    plan = plan.model_copy(update={"ranks": plan.ranks * 3})
    other = {**own_versions(), "keras": "2.15.0"}
    with pytest.raises(ResourceStartError, match="none was started") as caught:
        check_arrivals(
            plan,
            [
                arrived("small", memory_mib=1500),
                arrived("small", memory_mib=1500),
                arrived("old", versions=other, horovod="Horovod was built for another TensorFlow"),
            ],
        )
    assert (caught.value.evidence or "").splitlines() == [
        f"old: keras 2.15.0, the driver has {own_versions()['keras']}",
        "old: Horovod was built for another TensorFlow",
        "small: 1,500 MiB free, 2 ranks want 2,048 MiB",
    ]


def test_ranks_that_want_a_gpu_each_are_refused_without_one(tmp_path: Path) -> None:
    """Or with one for two: NCCL would say that something is invalid, after the launch."""
    plan = plan_launch(HorovodSpec(ranks=1, backend="spark", gpu=True), HorovodPlacement(), tmp_path)
    plan = plan.model_copy(update={"ranks": plan.ranks * 3})
    given = [("none", ()), ("both", ("0",)), ("both", ("0",))]
    with pytest.raises(ResourceStartError, match="none was started") as caught:
        check_arrivals(plan, [arrived(host, devices=devices) for host, devices in given])
    assert (caught.value.evidence or "").splitlines() == [
        "none: 1 ranks have no GPU from Spark",
        "both: 2 ranks share GPU 0",
    ]
    assert "and a GPU per rank" in (caught.value.wanted or "")


@pytest.mark.parametrize(
    ("spark", "says"),
    [
        (SparkPlacement(master="local[2]", gpu=True), "`horovod.backend: processes`"),
        (SparkPlacement(master="spark://head:7077", slots=2), "`spark.gpu: true`"),
        (
            SparkPlacement(
                master="spark://head:7077",
                slots=2,
                gpu=True,
                conf={"spark.task.resource.gpu.amount": "0.5"},
            ),
            "spark.task.resource.gpu.amount=0.5",
        ),
    ],
)
def test_spark_without_a_gpu_for_each_task_is_refused_before_it_starts(
    spark: SparkPlacement, says: str
) -> None:
    horovod = HorovodPlacement(backend="spark", gpu=True)
    spec = HorovodSpec(ranks=1, backend="spark", gpu=True)
    with pytest.raises(ResourceStartError, match="ranks want a GPU each") as caught:
        GangLease.preflight(spec, Placement(spark=spark, horovod=horovod))
    assert says in str(caught.value)
    given = spark.model_copy(update={"master": "spark://head:7077", "gpu": True, "conf": {}, "slots": 2})
    GangLease.preflight(spec, Placement(spark=given, horovod=horovod))


def test_equal_executors_with_room_are_fine(tmp_path: Path) -> None:
    plan = plan_launch(HorovodSpec(ranks=1, backend="spark"), HorovodPlacement(), tmp_path)
    check_arrivals(plan, [arrived("one", horovod="not built")])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"spark.dynamicAllocation.enabled": "true"}, "a fixed number of executors"),
        ({"spark.ssl.enabled": "true"}, "spark.ssl.enabled=true"),
        ({"spark.network.crypto.enabled": "TRUE"}, "in the clear"),
    ],
)
def test_settings_under_which_ranks_would_not_start_or_would_surprise(
    settings: dict[str, str], says: str
) -> None:
    with pytest.raises(ResourceStartError) as caught:
        check_settings(settings, network_is_loopback=False, unencrypted=False)
    assert says in str(caught.value)
    assert "placement" in (caught.value.hint or "")


def test_encryption_does_not_matter_on_loopback_or_where_it_was_waived() -> None:
    check_settings({"spark.ssl.enabled": "true"}, network_is_loopback=True, unencrypted=False)
    check_settings({"spark.ssl.enabled": "true"}, network_is_loopback=False, unencrypted=True)


def test_a_cluster_must_say_its_slots_and_has_enough() -> None:
    """Before Spark is started: by the budget, in words that name slots."""
    horovod = HorovodPlacement(backend="spark", ranks=2)
    unknown = Placement(spark=SparkPlacement(master="spark://head:7077"), horovod=horovod)
    with pytest.raises(ResourceStartError, match="nobody can say how many ranks fit on spark://head:7077"):
        GangLease.preflight(HorovodSpec(ranks=1, backend="spark"), unknown)
    conf = {"spark.cores.max": "3"}
    known = Placement(spark=SparkPlacement(master="spark://head:7077", conf=conf), horovod=horovod)
    GangLease.preflight(HorovodSpec(ranks=1, backend="spark"), known)
    leases = Leases(Scope(name="test", run="test", placement=known))
    with pytest.raises(ResourceStartError) as caught:
        leases.budget.check(leases.needs([HorovodSpec(ranks=4, backend="spark")]), task="train")
    assert caught.value.wanted == "4 slots of the Spark application at once"
    assert caught.value.got == "3 Spark slots"


def test_a_machine_that_cannot_reach_rank_0_is_named_before_a_rank_is_started() -> None:
    """Gloo would try until its timeout, and name nobody."""
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
    keepers = [Channel(end, b"k" * 32, side="driver") for end in ours]
    first, second = (Channel(end, b"k" * 32, side="rank") for end in theirs)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        for end in (*ours, *theirs):
            stack.enter_context(end)
        checking = pool.submit(check_reach, [arrived("one"), arrived("two")], keepers)
        assert first.receive() == messages.Listen()
        first.send(messages.Listening(port))
        reach = second.receive()
        assert isinstance(reach, messages.Reach)
        second.send(messages.Reached(reached(reach)))
        with pytest.raises(ResourceStartError, match="two cannot reach rank 0 on one; no rank was") as caught:
            checking.result(20)
    assert caught.value.wanted == f"a connection from 127.0.0.1 to 127.0.0.1, port {port}"
    assert "Connection refused" in (caught.value.got or "")


def test_what_a_rank_printed_onto_a_full_disk_is_lost_and_the_rank_lives_on(tmp_path: Path) -> None:
    """A keeper whose words nobody takes would stop its rank's next line for good."""
    plan = plan_launch(HorovodSpec(ranks=1, backend="spark"), HorovodPlacement(), tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        rank = spark_stage.StageRank(
            plan.ranks[0].model_copy(update={"log_file": Path("/dev/full")}),
            Channel(ours, b"k" * 32, side="driver"),
        )
        keeper = Channel(theirs, b"k" * 32, side="rank")
        for message in (messages.Started(7), messages.Printed(b"a line"), messages.Exited(3)):
            keeper.send(message)
        assert rank.exit_code(20) == 3
        assert rank.pid == 7


def test_a_session_of_spark_connect_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_stage, "live_session", object)
    spec = HorovodSpec(ranks=1, backend="spark")
    with (
        pytest.raises(ResourceStartError, match="need a Spark application of this process") as caught,
        open_job(spec, HorovodPlacement(), log_folder=tmp_path / "logs"),
    ):
        pytest.fail("opened")
    assert caught.value.got == "a session of Spark Connect"


def test_without_an_application_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_stage, "live_session", lambda: None)
    spec = HorovodSpec(ranks=1, backend="spark")
    with (
        pytest.raises(ResourceStartError, match="need a Spark application of this process") as caught,
        open_job(spec, HorovodPlacement(), log_folder=tmp_path / "logs"),
    ):
        pytest.fail("opened")
    assert "open_session" in (caught.value.hint or "")
    assert not (tmp_path / "logs").exists()
