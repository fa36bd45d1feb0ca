"""Keys of the tasks of a project folder, each folder in a process of its own.

Reads folders from standard input, one a line with the tasks that are asked for, and answers each with a
line of JSON. Every folder is loaded in a fork of a process that has loaded the libraries and nothing of the
project.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ARGUMENTS: dict[str, Any] = {
    "call_functions": 4,
    "use_classes": 4,
    "use_values": 4,
    "import_late": 4,
    "import_named": "",
    "import_choices": 4,
    "import_deep": 4,
    "import_file": "",
    "look_up": "",
    "import_computed": "",
    "use_kinds": 4,
    "read_text": 4,
    "look_around": 4,
    "import_relative": 4,
    "import_bare": "",
}
"""Tasks, and what each is called with."""


def main() -> None:
    import attrs  # noqa: F401  (loaded before the fork, so that no fork pays for it)
    import numpy  # noqa: F401, ICN001

    import tests.engine.mutations.policies  # noqa: F401
    from ml_platform.engine.code.origin import versions

    versions(["attr", "numpy", "pydantic", "pydantic_core", "typing_extensions"])  # and this looked up

    for line in sys.stdin:
        folder, tasks = line.rstrip("\n").split("\t")
        print(in_fork(Path(folder), tasks.split(",")), flush=True)


def in_fork(folder: Path, tasks: list[str]) -> str:
    """What `keys_of` answers, or the error that it raised, as JSON."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writable, "w") as pipe:
                json.dump(keys_of(folder, tasks), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or json.dumps({"error": f"{folder} could not be loaded"})


def keys_of(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """By task: our digest, Prefect's keys, what the task returns, and what we have to say about it."""
    sys.path[:0] = [str(folder), str(folder / "site-packages")]
    sys.dont_write_bytecode = True
    from shop import tasks  # type: ignore[import-not-found]

    return {name: _keys(getattr(tasks, name).function, ARGUMENTS[name]) for name in names}


def _keys(function: Any, argument: Any) -> dict[str, Any]:
    from prefect import Task

    from ml_platform.engine.code import code_of
    from tests.engine.mutations.policies import prefect_keys

    code = code_of(function)
    return {
        "ours": code.digest,
        **prefect_keys(Task(fn=function), {"argument": argument}),
        "output": function(argument),
        "code": code.model_dump(mode="json"),
    }


if __name__ == "__main__":
    main()
