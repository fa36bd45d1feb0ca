"""What each edit did, and the count of wrong answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.mutations.keys import ARGUMENTS
from tests.engine.mutations.policies import CLOSEST, POLICIES
from tests.engine.mutations.project import Edit, write_project
from tests.engine.mutations.world_edits import WorldEdit

Keys = dict[str, dict[str, Any]]
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Outcome:
    """One edit, and what the task was before and after it."""

    edit: Edit | WorldEdit
    before: dict[str, Any]
    after: dict[str, Any]

    def hit(self, engine: str) -> bool:
        """Whether the stored result would be used by `ours`, or by one of `POLICIES`."""
        return bool(self.before[engine] == self.after[engine])

    def is_wrong(self, engine: str) -> bool:
        return self.hit(engine) != (self.edit.must == "hit")

    def shows(self) -> bool:
        """Whether the task returns something else."""
        return bool(self.before["output"] != self.after["output"])


def outcomes(edits: Sequence[Edit], folder: Path) -> list[Outcome]:
    """Apply every edit to a copy of its own and ask for all keys."""
    copies = [write_project(folder / f"edit {number}", edit) for number, edit in enumerate(edits)]
    asked = [list(ARGUMENTS), *([edit.task] for edit in edits)]
    before, *after = keys(zip([write_project(folder / "as it is"), *copies], asked, strict=True))
    return [Outcome(e, before[e.task], found[e.task]) for e, found in zip(edits, after, strict=True)]


def keys(folders: Iterable[tuple[Path, list[str]]]) -> list[Keys]:
    """Keys of the named tasks in each folder, each in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engine.mutations.keys"],
        input="\n".join(f"{folder}\t{','.join(tasks)}" for folder, tasks in folders),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=900,
    )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    broken = [answer["error"] for answer in answers if "error" in answer]
    if ran.returncode or broken:
        raise RuntimeError(f"{broken} {ran.stderr[-4000:]}")
    return answers


def table(found: Sequence[Outcome]) -> str:
    """One line per edit, then false hits and false misses of the engine and of each of Prefect's policies."""
    width = max(len(outcome.edit.name) for outcome in found)
    lines = [f"{'edit':<{width}}  must  engine  Prefect"]
    for outcome in found:
        answers = "  ".join(f"{_answer(outcome, engine):<6}" for engine in ("ours", CLOSEST))
        lines.append(f"{outcome.edit.name:<{width}}  {outcome.edit.must:<4}  {answers}".rstrip())
    for must, kind in (("miss", "false hits"), ("hit", "false misses")):
        of = [outcome for outcome in found if outcome.edit.must == must]
        wrong = {engine: sum(outcome.is_wrong(engine) for outcome in of) for engine in ("ours", *POLICIES)}
        prefect = ", ".join(f"{policy} {wrong[policy]}" for policy in POLICIES)
        lines.append(f"{kind} of {len(of)}: engine {wrong['ours']}; Prefect's {prefect}")
    return "\n".join(lines)


def _answer(outcome: Outcome, engine: str) -> str:
    return ("hit" if outcome.hit(engine) else "miss") + ("!" if outcome.is_wrong(engine) else "")
