"""Where a project keeps what it writes: one folder, ignored by git, and the store of data sets.

`ML_PLATFORM_HOME` moves the folder, `ML_PLATFORM_STORE` names another store. Both are read at each
call, so that a test or a rank that sets them is obeyed.
"""

from __future__ import annotations

import os
from pathlib import Path

from ml_platform.errors import SpecError, StoreError


def home() -> Path:
    """Folder of runs, data sets, databases and logs: `$ML_PLATFORM_HOME`, or `.ml-platform` here.

    Returns:
        An absolute path. The folder exists, and only its owner may read it when it was made here.
    Raises:
        StoreError: It cannot be made, or something that is no folder is in its place.
    """
    folder = Path(os.environ.get("ML_PLATFORM_HOME") or ".ml-platform").expanduser().absolute()
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the platform's folder {folder} cannot be made",
            got=f"{type(error).__name__}: {error.strerror}",
            hint="name a folder that you may write in ML_PLATFORM_HOME",
        ) from error
    return folder


def data_uri() -> str:
    """URI of the folder that holds data sets: `$ML_PLATFORM_STORE`, or `data` under `home()`.

    Returns:
        A URI with a scheme and without a slash at its end. A plain path in the variable becomes file://.
    Raises:
        SpecError: The variable names a home folder that does not exist (`~nobody`).
    """
    named = os.environ.get("ML_PLATFORM_STORE")
    if not named:
        return (home() / "data").as_uri()
    if "://" in named:
        return named.rstrip("/")
    try:
        return Path(named).expanduser().absolute().as_uri()
    except RuntimeError as error:
        raise SpecError(f"ML_PLATFORM_STORE names no folder: {named!r}", got=str(error)) from error


def runs_folder(run: str) -> Path:
    """Folder of one run's record and logs, `runs/<run>` under `home()`. Made by whoever writes first.

    Raises:
        SpecError: `run` is empty or would leave the folder of runs.
    """
    if not run or run in {".", ".."} or "/" in run or "\0" in run:
        raise SpecError(f"{run!r} cannot name a run", wanted="a name without slashes, such as brave-otter")
    return home() / "runs" / run
