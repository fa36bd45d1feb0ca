"""What executors on other machines are sent: packages and modules, not data, in the order of imports."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources import project_files
from ml_platform.resources.project_files import pack_packages


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    for path, text in {
        first / "shop" / "__init__.py": "",
        first / "shop" / "prices.py": "PRICE = 3",
        first / "shop" / "query.sql": "select 1",
        first / "shop" / "large.bin": "x" * (2 << 20),
        first / "shop" / "__pycache__" / "prices.pyc": "",
        first / "shop" / ".secret": "",
        first / "notes" / "readme.txt": "",
        first / ".venv" / "__init__.py": "",
        first / "single.py": "import shop.prices",
        second / "shop" / "__init__.py": "raise RuntimeError",
        second / "other.py": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [first, second]


def test_packages_and_modules_are_sent(folders: list[Path], tmp_path: Path) -> None:
    """As an import finds them; without data, caches and hidden files; and Python imports from it."""
    target = pack_packages(folders, tmp_path / "project.zip")
    names = {"shop/__init__.py", "shop/prices.py", "shop/query.sql", "single.py", "other.py"}
    assert set(zipfile.ZipFile(target).namelist()) == names
    code = "import single, sys; print(sys.modules['shop.prices'].PRICE)"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "3\n"


def test_too_much_is_refused(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_files, "TOTAL_BYTES", 10)
    with pytest.raises(ResourceStartError, match="too large to be sent to executors"):
        pack_packages(folders, tmp_path / "project.zip")
