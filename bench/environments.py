"""One virtual environment per peer, built once per pinned requirements file and kept for this user."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
OWN = frozenset(
    {
        *(
            "ours",
            "ours_cached",
            "ours_feed",
            "ours_flow",
            "ours_gang",
            "ours_images",
            "ours_ranks",
            "ours_scoring",
            "ours_tables",
            "ours_trees",
            "ours_tuning",
        ),
        *("by_hand", "images", "journal", "launchers", "reading", "scoring", "spark_tables", "spark_trees"),
        "whole_table",
    }
)
"""Drivers that run in this project's own environment."""
UV = Path(sys.executable).with_name("uv")


def interpreter(peer: str) -> Path:
    """Python of a peer's environment; ours is this one. Built when it is not there yet."""
    if peer in OWN:
        return Path(sys.executable)
    folder = environment_folder(peer)
    if not (folder / "ready").exists():
        _build(folder, PEERS / peer / "requirements.txt")
    return folder / "bin" / "python"


def environment_folder(peer: str) -> Path:
    """Named by the digest of what is pinned: another pin is another environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256((PEERS / peer / "requirements.txt").read_bytes()).hexdigest()
    return cache / "ml-platform" / "bench" / f"{peer}-{digest[:16]}"


def version(peer: str) -> str:
    """The pinned version of the peer itself; it stands in the first line of what was asked for."""
    name = (PEERS / peer / "requirements.in").read_text().split()[0].partition("==")[0]
    for line in (PEERS / peer / "requirements.txt").read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line.split()[0]
    raise LookupError(f"{peer}/requirements.txt pins no {name}")


def _build(folder: Path, requirements: Path) -> None:
    print(f"building {folder.name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--require-hashes", "--compile-bytecode"]
    subprocess.run([*install, "--python", folder / "bin" / "python", "-r", requirements], check=True)
    (folder / "ready").touch()
