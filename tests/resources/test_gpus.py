"""GPUs: which are there, which may be seen, what a build for them needs, what Spark is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ml_platform.cli.machine_checks import check_gpus, judge_gpus
from ml_platform.errors import ResourceStartError
from ml_platform.resources import horovod_build, spark as spark_module
from ml_platform.resources.budget import Budget, usable_gpus
from ml_platform.resources.cuda_toolkit import Toolkit, find_toolkit
from ml_platform.resources.gang_lease import GangLease
from ml_platform.resources.gpus import DISCOVERY_SCRIPT, Gpu, chosen, parsed, spark_gpu_settings, visible_gpus
from ml_platform.resources.horovod import plan_launch
from ml_platform.resources.horovod_build import Availability
from ml_platform.resources.placement import load_placement
from ml_platform.specs.placements import BudgetSpec, HorovodPlacement, Placement, SparkPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.worker import session

ROOT = Path(__file__).parents[2]
TOLD = """0, GPU-5f1c, 81559, NVIDIA H100 80GB HBM3
1, GPU-77aa, [N/A], NVIDIA Thing, with a comma
No devices were found
"""
BOTH = tuple(gpu for line in TOLD.splitlines() if (gpu := parsed(line)) is not None)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that lists two GPUs: for machines without one."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    indices = "0\\n1\\n"
    program.write_text(
        f"#!/bin/sh\ncase $1 in *index,*) cat <<'E'\n{TOLD}E\n;; *) printf '{indices}' ;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def test_what_the_driver_lists_is_read() -> None:
    assert [gpu.index for gpu in BOTH] == [0, 1]
    assert BOTH[0] == Gpu(index=0, uuid="GPU-5f1c", memory_mib=81559, name="NVIDIA H100 80GB HBM3")
    assert (BOTH[1].memory_mib, BOTH[1].name) == (0, "NVIDIA Thing, with a comma")


@pytest.mark.parametrize(
    ("visible", "wanted"),
    [(None, [0, 1]), ("", []), ("-1", []), ("1", [1]), ("1,0", [1, 0]), ("GPU-77", [1]), ("0,7,1", [0])],
)
def test_cuda_visible_devices_is_obeyed_as_cuda_does(visible: str | None, wanted: list[int]) -> None:
    """Numbers or the beginnings of UUIDs, in their order, up to the first that names no GPU."""
    assert [gpu.index for gpu in chosen(BOTH, visible)] == wanted


def test_gpus_of_this_machine(driver: Path) -> None:
    assert visible_gpus({}) == BOTH
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == BOTH[1:]


def test_a_driver_that_fails_is_none(driver: Path) -> None:
    driver.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == ()


def test_spark_discovers_gpus_with_a_script_that_needs_no_python(driver: Path) -> None:
    """Spark runs it on each worker and reads one line of JSON."""
    told = subprocess.run([str(DISCOVERY_SCRIPT)], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == {"name": "gpu", "addresses": ["0", "1"]}
    settings = spark_gpu_settings("spark://head:7077")
    assert settings["spark.executor.resource.gpu.discoveryScript"] == str(DISCOVERY_SCRIPT)
    assert settings["spark.executor.resource.gpu.amount"] == settings["spark.task.resource.gpu.amount"] == "1"
    assert spark_gpu_settings("local[2]") == {}


def test_the_doctor_warns_of_gpus_that_nothing_can_use() -> None:
    builds = {"TensorFlow": False, "XGBoost": True, "Horovod": False}
    check = judge_gpus(BOTH, builds)
    assert (check.status, check.next_step) == ("warn", "make setup GPU=1")
    assert check.reason == "installed without CUDA: TensorFlow, Horovod"
    assert "NVIDIA H100 80GB HBM3, 81559 MiB" in check.found
    assert judge_gpus(BOTH, dict.fromkeys(builds, True)).status == "ok"
    assert judge_gpus((), builds).found == "none"


# ── What a build needs ───────────────────────────────────────────────────────────────────────────


def made(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#define NCCL_MAJOR 2\n#define NCCL_MINOR 31\n#define NCCL_PATCH 2\n")


def test_a_machine_without_cuda_is_told_what_is_missing_and_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ResourceStartError, match="Horovod cannot be built for GPUs") as caught:
        find_toolkit({"PATH": "", "CUDA_HOME": "/opt/cuda"}, packages=tmp_path / "site", root=tmp_path)
    error = caught.value
    assert error.got == "missing: nvcc, CUDA's compiler; nccl.h, NCCL's header; libnccl.so, NCCL's library"
    for place in (
        "/opt/cuda/bin/nvcc",
        f"{tmp_path}/usr/local/cuda/bin/nvcc",
        f"{tmp_path}/usr/include/nccl.h",
    ):
        assert place in (error.evidence or "")
    assert "NCCL_HOME" in (error.hint or "")


def test_only_what_is_missing_is_named(tmp_path: Path) -> None:
    made(tmp_path / "usr/include/nccl.h", tmp_path / "usr/lib/x86_64-linux-gnu/libnccl.so")
    with pytest.raises(ResourceStartError) as caught:
        find_toolkit({"PATH": ""}, packages=tmp_path / "site", root=tmp_path)
    assert caught.value.got == "missing: nvcc, CUDA's compiler"
    assert "NCCL" not in (caught.value.hint or "")


def test_pip_packages_serve_and_a_versioned_library_gets_a_plain_name(tmp_path: Path) -> None:
    """A linker looks for libnccl.so; NVIDIA's wheel has libnccl.so.2 alone."""
    site = tmp_path / "site"
    nvcc, header = site / "nvidia/cu13/bin/nvcc", site / "nvidia/nccl/include/nccl.h"
    library = site / "nvidia/nccl/lib/libnccl.so.2"
    made(nvcc, header, library, site / "nvidia/cu13/lib/libcudart.so.13")
    toolkit = find_toolkit({"PATH": ""}, packages=site, root=tmp_path)
    assert toolkit == Toolkit(nvcc=nvcc, nccl_header=header, nccl_library=library)
    told = toolkit.environment(tmp_path / "links")
    assert (tmp_path / "links/libnccl.so").resolve() == library
    assert told["HOROVOD_NCCL_LIB"] == str(tmp_path / "links")
    assert (told["HOROVOD_CUDA_HOME"], told["HOROVOD_NCCL_INCLUDE"]) == (
        str(site / "nvidia/cu13"),
        str(header.parent),
    )
    assert told["LIBRARY_PATH"].split(os.pathsep)[0] == str(site / "nvidia/cu13/lib")


def test_the_environment_wins_over_the_usual_places(tmp_path: Path) -> None:
    made(tmp_path / "usr/local/cuda/bin/nvcc", tmp_path / "mine/bin/nvcc")
    made(tmp_path / "usr/include/nccl.h", tmp_path / "usr/lib/libnccl.so")
    found = find_toolkit({"PATH": "", "CUDA_HOME": str(tmp_path / "mine")}, packages=tmp_path, root=tmp_path)
    assert found.nvcc == tmp_path / "mine/bin/nvcc"


def test_a_build_for_gpus_is_another_build(tmp_path: Path) -> None:
    """NCCL is in the key, and in the installed version; the build for the CPU keeps the key it had."""
    nvcc, header = tmp_path / "nvcc", tmp_path / "nccl.h"
    made(header)
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    toolkit = Toolkit(nvcc=nvcc, nccl_header=header, nccl_library=tmp_path / "libnccl.so")
    assert toolkit.version == "CUDA 13.0, NCCL 2.31.2"
    gpu, cpu = horovod_build.present_recipe(toolkit), horovod_build.present_recipe()
    assert gpu.flags == {**cpu.flags, "HOROVOD_GPU_OPERATIONS": "NCCL"}
    assert gpu.platform == f"{cpu.platform} CUDA 13.0, NCCL 2.31.2"
    assert gpu.key != cpu.key
    assert gpu.local_version.endswith(".nccl")
    assert cpu.flags == horovod_build.FLAGS


# ── By placement ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("visible", "wanted"), [(None, 2), ("0", 1), ("1,0", 2), ("", 0), ("-1", 0), ("0,1,2", 2)]
)
def test_the_budget_counts_gpus_without_asking_a_program(
    tmp_path: Path, visible: str | None, wanted: int
) -> None:
    """A plan may start no process."""
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / address).mkdir()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert usable_gpus(environment, tmp_path) == wanted
    assert usable_gpus(environment, tmp_path / "no driver") == 0


def test_the_gpu_placement_gives_each_rank_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it adds is in the task's key, in what is asked of the budget, and in the ranks' environment."""
    monkeypatch.setenv("ML_PLATFORM_PLACEMENTS", str(ROOT / "deployments" / "placements"))
    placement = load_placement("gpu")
    spec = GangLease.resolve(HorovodSpec(ranks=2, backend="processes"), placement)
    assert spec.gpu
    assert GangLease.need(spec, placement).gpus == 2
    assert GangLease.resolve(HorovodSpec(ranks=2), Placement()).gpu is False
    with pytest.raises(ResourceStartError, match="can never get its resources"):
        Budget(BudgetSpec(gpus=1)).check([GangLease.need(spec, placement)], task="train_keras")


def test_spark_is_told_of_gpus_where_its_placement_has_them(tmp_path: Path) -> None:
    cluster = SparkPlacement(master="spark://host:7077", gpu=True)
    settings = spark_module._settings(cluster, tmp_path)
    assert settings["spark.task.resource.gpu.amount"] == "1"
    mine = cluster.model_copy(update={"conf": {"spark.executor.resource.gpu.amount": "4"}})
    assert spark_module._settings(mine, tmp_path)["spark.executor.resource.gpu.amount"] == "4"
    local = spark_module._settings(SparkPlacement(gpu=True), tmp_path)
    assert not [name for name in local if "gpu" in name]


@pytest.mark.parametrize("local_rank", [0, 1])
def test_a_rank_lets_the_memory_of_its_own_gpu_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_rank: int
) -> None:
    """Its plan lets it see the device of its local rank; TensorFlow does not take all of that at once.
    NCCL and Gloo join ranks over the interface of the job."""
    monkeypatch.setattr(horovod_build, "horovod_available", lambda: Availability(ok=True, reason="built"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    plan = plan_launch(HorovodSpec(ranks=2, backend="processes"), HorovodPlacement(), tmp_path, gpus=2)
    environment = plan.ranks[local_rank].environment
    assert environment["HOROVOD_LOCAL_RANK"] == str(local_rank)
    assert environment["NCCL_SOCKET_IFNAME"] == environment["HOROVOD_GLOO_IFACE"] != ""
    seen = environment["CUDA_VISIBLE_DEVICES"].split(",")
    assert seen == [("3", "5")[local_rank]]
    grown: list[tuple[str, bool]] = []
    config = SimpleNamespace(
        list_physical_devices=lambda kind: seen if kind == "GPU" else ["cpu"],
        experimental=SimpleNamespace(set_memory_growth=lambda device, on: grown.append((device, on))),
    )
    monkeypatch.setattr(session, "import_libraries", lambda *, horovod: None)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    session.prepare_session(2)
    assert grown == [(seen[0], True)]


# ── On a machine that has one ────────────────────────────────────────────────────────────────────


@pytest.mark.gpu
def test_real_gpus_are_found_alike_by_all_who_look() -> None:
    gpus = visible_gpus({})
    told = subprocess.run([str(DISCOVERY_SCRIPT)], capture_output=True, text=True, check=True).stdout
    assert gpus
    assert json.loads(told)["addresses"] == [str(gpu.index) for gpu in gpus]
    assert all(gpu.memory_mib > 1024 for gpu in gpus)
    assert gpus[0].name in check_gpus()[0].found


@pytest.mark.gpu
def test_a_rank_sees_one_gpu_alone() -> None:
    """What the launch plan says hides the others from CUDA itself."""
    plan = plan_launch(HorovodSpec(ranks=1, backend="processes"), HorovodPlacement(), Path(), gpus=1)
    device = plan.ranks[0].environment["CUDA_VISIBLE_DEVICES"]
    count = "import ctypes; n = ctypes.c_int(); c = ctypes.CDLL('libcuda.so.1'); c.cuInit(0); "
    count += "c.cuDeviceGetCount(ctypes.byref(n)); print(n.value)"
    for visible, wanted in ((device, "1"), ("-1", "0")):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        seen = subprocess.run([sys.executable, "-c", count], env=environment, capture_output=True, text=True)
        assert seen.stdout.strip() == wanted


@pytest.mark.gpu
def test_the_toolkit_of_this_machine_compiles_against_nccl(tmp_path: Path) -> None:
    toolkit = find_toolkit()
    source = tmp_path / "version.cu"
    source.write_text(
        "#include <nccl.h>\n#include <cstdio>\n"
        'int main() { int v = 0; ncclGetVersion(&v); std::printf("%d\\n", v == NCCL_VERSION_CODE); }\n'
    )
    told = toolkit.environment(tmp_path / "links")
    command = [toolkit.nvcc, source, "-o", tmp_path / "version", f"-I{told['HOROVOD_NCCL_INCLUDE']}"]
    command += [f"-L{told['HOROVOD_NCCL_LIB']}", "-lnccl"]
    subprocess.run([str(word) for word in command], env={**os.environ, **told}, check=True)
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(toolkit.nccl_library.parent)}
    ran = subprocess.run(
        [str(tmp_path / "version")], env=libraries, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "1\n"
