"""The pinned requirement files: complete, hashed, without addresses, and in step with the doctor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ml_platform.cli.version_checks import PINS

FOLDER = Path(__file__).parents[2] / "requirements"
LOCKS = ("bootstrap", "build", "dev", "gpu", "horovod", "runtime")


def entries(name: str) -> list[str]:
    """Logical lines of a requirements file, without comments."""
    text = re.sub(r"^\s*#.*$", "", (FOLDER / name).read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def wanted() -> dict[str, SpecifierSet]:
    parsed = [Requirement(line) for line in entries("runtime.in")]
    return {requirement.name: requirement.specifier for requirement in parsed}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_pinned_and_hashed(name: str) -> None:
    found = entries(f"{name}.txt")
    assert found
    for entry in found:
        assert re.match(r"[\w.-]+==[^\s;]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+ *$", entry), entry


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_no_file_holds_an_address(file: Path) -> None:
    """Where packages come from is the user's own setting."""
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index|--find-links|--trusted-host|^-[if] ", text, re.MULTILINE)


def test_the_lock_holds_what_is_asked_for() -> None:
    locked = {entry.split("==")[0]: entry.split("==")[1].split()[0] for entry in entries("runtime.txt")}
    for name, specifier in wanted().items():
        assert specifier.contains(locked[name]), name


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.package)
def test_the_doctor_wants_what_the_requirements_want(pin: object) -> None:
    """Two places name versions; they may not differ."""
    assert wanted()[pin.package] == SpecifierSet(pin.wanted)  # type: ignore[attr-defined]


def test_every_odd_pin_has_a_doctor() -> None:
    limited = {name for name, specifier in wanted().items() if str(specifier)}
    assert limited == {pin.package for pin in PINS}
