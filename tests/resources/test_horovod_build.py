"""Which Horovod belongs here, what a failed build tells, and what the cache gives back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from importlib import metadata
from pathlib import Path

import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources import horovod_build, horovod_compile
from ml_platform.resources.horovod_build import Recipe, abi, cached_wheel, pinned_sdist, present_recipe

RECIPE = Recipe(
    horovod="0.28.1", sdist_sha256="ab" * 32, tensorflow="2.21.0", tensorflow_abi="cd" * 32,
    python=".cpython-311.so", platform="linux-x86_64 glibc 2.36",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = horovod_build.cache()
    folder.mkdir(parents=True)
    return folder


# ── The key ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", sorted(Recipe.model_fields))
def test_every_field_is_in_the_key(field: str) -> None:
    """A build for another TensorFlow, Python, flag or patch is another build."""
    value = {"HOROVOD_DEBUG": "1"} if field == "flags" else "another"
    assert RECIPE.model_copy(update={field: value}).key != RECIPE.key


def test_the_local_version_survives_normalisation() -> None:
    """Packaging strips zeros in front of bare digits; two keys must not become one version."""
    from packaging.version import Version

    assert Version(f"0.28.1+{RECIPE.local_version}").local == RECIPE.local_version


def test_the_pin_of_the_repository_is_read() -> None:
    version, sha256 = pinned_sdist()
    assert version == "0.28.1"
    assert len(sha256) == 64


def test_the_present_recipe_is_stable() -> None:
    assert present_recipe() == present_recipe()


# ── Is it there ──────────────────────────────────────────────────────────────────────────────────


def distribution(folder: Path, name: str, version: str, record: str = "") -> metadata.Distribution:
    """An installed distribution, as pip leaves it on disk."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(record)
    return metadata.PathDistribution(info)


def horovod_for(folder: Path, tensorflow: str, *, local: str = "") -> metadata.Distribution:
    library = folder / "horovod" / "tensorflow" / f"mpi_lib{sysconfig.get_config_var('EXT_SUFFIX')}"
    library.parent.mkdir(parents=True)
    library.touch()
    (folder / "horovod" / "metadata.json").write_text(json.dumps({"tensorflow": tensorflow}))
    return distribution(folder, "horovod", f"0.28.1{local}")


def tensorflow_at(
    folder: Path, version: str = "2.21.0", digest: str = "sha256=aa,1"
) -> metadata.Distribution:
    record = f"tensorflow/libtensorflow_cc.so.2,{digest}\ntensorflow/a.py,sha256=cc,1\n"
    return distribution(folder, "tensorflow_cpu", version, record)


def test_a_build_for_this_tensorflow_has_no_fault(tmp_path: Path) -> None:
    assert horovod_build._fault(horovod_for(tmp_path, "2.21.0"), tensorflow_at(tmp_path)) is None


def test_a_build_for_another_tensorflow_is_a_fault(tmp_path: Path) -> None:
    fault = horovod_build._fault(horovod_for(tmp_path, "2.20.0"), tensorflow_at(tmp_path))
    assert fault == "Horovod was built for TensorFlow 2.20.0, installed is 2.21.0"


def test_a_build_for_another_build_of_the_same_version_is_a_fault(tmp_path: Path) -> None:
    """tensorflow and tensorflow-cpu of one version differ in their libraries."""
    other = abi(tensorflow_at(tmp_path / "other", digest="sha256=bb,1"))[:12]
    horovod = horovod_for(tmp_path, "2.21.0", local=f"+k123.tf{other}")
    assert "another build" in str(horovod_build._fault(horovod, tensorflow_at(tmp_path)))


def test_a_missing_library_is_a_fault(tmp_path: Path) -> None:
    horovod = horovod_for(tmp_path, "2.21.0")
    for library in tmp_path.rglob("mpi_lib*"):
        library.unlink()
    assert "no library for this Python" in str(horovod_build._fault(horovod, tensorflow_at(tmp_path)))


def test_an_install_without_its_library_list_is_a_fault(tmp_path: Path) -> None:
    horovod = distribution(tmp_path, "horovod", "0.28.1")
    assert "without its library" in str(horovod_build._fault(horovod, tensorflow_at(tmp_path)))


def test_only_libraries_decide_the_abi(tmp_path: Path) -> None:
    """pip and uv list scripts and compiled files differently; a library is a library."""
    one = distribution(tmp_path / "1", "tensorflow", "2.21.0", "a.so,sha256=1,2\nb.py,sha256=3,4\n")
    two = distribution(tmp_path / "2", "tensorflow", "2.21.0", "b.pyc,,\na.so,sha256=1,2\n")
    assert abi(one) == abi(two) != abi(tensorflow_at(tmp_path / "3"))


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────


def test_a_failure_is_remembered_until_the_tools_change() -> None:
    error = ResourceStartError("Horovod cannot be built", got="missing: make", hint="apt install make")
    horovod_build._record_failure(RECIPE, "g++ 12, no make", error)
    with pytest.raises(ResourceStartError, match="as before") as caught:
        horovod_build._refuse_known_failure(RECIPE, "g++ 12, no make")
    assert "missing: make" in str(caught.value)
    assert "--again" in str(caught.value)
    horovod_build._refuse_known_failure(RECIPE, "g++ 12, make 4.3")


def test_a_failure_of_one_build_says_nothing_of_another() -> None:
    horovod_build._record_failure(RECIPE, "tools", ResourceStartError("no"))
    horovod_build._refuse_known_failure(RECIPE.model_copy(update={"tensorflow": "2.22.0"}), "tools")


def test_a_failure_of_the_network_is_tried_again() -> None:
    horovod_build._record_failure(RECIPE, horovod_build.ANY_TOOLCHAIN, ResourceStartError("no network"))
    horovod_build._refuse_known_failure(RECIPE, "tools")


def test_a_step_that_fails_names_the_first_error_and_keeps_the_last_lines(tmp_path: Path) -> None:
    step = [
        sys.executable,
        "-c",
        "print('a.cc:3: fatal error: b.h: No such file'); print('make: stop'); exit(2)",
    ]
    with pytest.raises(ResourceStartError) as caught:
        horovod_compile._run(step, tmp_path, os.environ)
    assert caught.value.got == "exit code 2, a.cc:3: fatal error: b.h: No such file"
    assert str(caught.value.evidence).splitlines()[-1] == "make: stop"


def test_what_pip_cannot_fetch_is_no_fault_of_the_compiler(tmp_path: Path) -> None:
    command = horovod_compile._pip("download", "--no-index", "--dest", str(tmp_path), "no-such-package")
    with pytest.raises(horovod_compile.NotFetchedError, match="not fetched"):
        horovod_compile._run(command, tmp_path, os.environ)


def test_a_missing_compiler_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ResourceStartError) as caught:
        horovod_compile.compile_wheel(RECIPE, own_cache, lambda _: None)
    assert "C++ compiler" in str(caught.value)
    assert "apt install" in str(caught.value)


def test_the_last_lines_are_the_compilers_own() -> None:
    """What follows is setup.py's traceback, which says only that the compiler failed."""
    traceback = "Traceback (most recent call last):\n  File x\nsubprocess.CalledProcessError: exit status 2\n"
    log = f"[10%] Building\nx.cc:1: error: no member\nmake: *** [all] Error 2\n{traceback}"
    assert horovod_compile.last_lines(log, 2) == ["x.cc:1: error: no member", "make: *** [all] Error 2"]
    assert horovod_compile.last_lines("Traceback (most recent call last):\nValueError: x") == [
        "Traceback (most recent call last):",
        "ValueError: x",
    ]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.horovod
def test_a_compiler_that_fails_is_told_with_its_last_lines(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """The real sources, the real tools, a compiler that always fails. Nothing half-built stays."""
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(ResourceStartError) as caught:
        horovod_compile.compile_wheel(present_recipe(), own_cache, lambda _: None)
    assert "/bin/false" in str(caught.value.evidence)
    assert len(str(caught.value.evidence).splitlines()) <= 20
    assert [path.suffix for path in own_cache.iterdir()] == [".log"]


# ── Sources ──────────────────────────────────────────────────────────────────────────────────────


def sdist(folder: Path, *members: tarfile.TarInfo) -> Path:
    path = folder / "horovod-0.28.1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 0 if fields else 1
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/etc/outside"),
        member("horovod-0.28.1/../../outside"),
        member("horovod-0.28.1/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("horovod-0.28.1/device", type=tarfile.CHRTYPE),
    ],
    ids=lambda bad: bad.name,
)
def test_a_member_outside_or_no_file_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = sdist(tmp_path, member("horovod-0.28.1/setup.py"), bad)
    with pytest.raises(ResourceStartError, match="refused"):
        horovod_compile._unpacked(archive, tmp_path / "sources")
    assert not (tmp_path / "sources").exists()


def test_plain_members_are_unpacked(tmp_path: Path) -> None:
    archive = sdist(tmp_path, member("horovod-0.28.1/setup.py"))
    assert (horovod_compile._unpacked(archive, tmp_path / "sources") / "setup.py").read_text() == "x"


def test_the_patch_takes_one_line_and_refuses_other_sources(tmp_path: Path) -> None:
    file = tmp_path / "horovod" / "tensorflow" / "CMakeLists.txt"
    file.parent.mkdir(parents=True)
    file.write_text("mpi_ops.cc\nxla_mpi_ops.cc\nend\n")
    horovod_compile._patched(tmp_path)
    assert file.read_text() == "mpi_ops.cc\nend\n"
    with pytest.raises(ResourceStartError, match="patch was written for"):
        horovod_compile._patched(tmp_path)


# ── The cache ────────────────────────────────────────────────────────────────────────────────────


def kept(cache: Path) -> Path:
    wheel = cache / RECIPE.key / "horovod.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"wheel")
    built = {"wheel": wheel.name, "sha256": hashlib.sha256(b"wheel").hexdigest()}
    (wheel.parent / "build.json").write_text(json.dumps(built))
    return wheel


def test_a_kept_wheel_is_found(own_cache: Path) -> None:
    assert cached_wheel(RECIPE) is None
    assert kept(own_cache) == cached_wheel(RECIPE)
    assert cached_wheel(RECIPE.model_copy(update={"patch": "2"})) is None


def test_a_damaged_wheel_is_not_used(own_cache: Path) -> None:
    kept(own_cache).write_bytes(b"whee")
    assert cached_wheel(RECIPE) is None


def test_a_build_that_was_killed_is_swept_away(own_cache: Path) -> None:
    (own_cache / ".building-dead" / "sources").mkdir(parents=True)
    with horovod_compile._work_folder(own_cache) as work:
        assert [path for path in own_cache.iterdir() if path.is_dir()] == [work]
    assert not list(own_cache.iterdir())


@pytest.mark.horovod
def test_an_installed_build_is_kept_without_looking_at_the_compiler(tmp_path: Path) -> None:
    """The command is part of every set-up; with Horovod in place it only reads."""
    if metadata.version("horovod").partition("+")[2] != present_recipe().local_version:
        pytest.skip("the installed Horovod was not built by this repository's recipe")
    env = {**os.environ, "CXX": "/bin/false", "XDG_CACHE_HOME": str(tmp_path / "nothing")}
    command = [sys.executable, "-m", "ml_platform", "build-horovod"]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "Horovod 0.28.1 built for TensorFlow 2.21.0\n")
