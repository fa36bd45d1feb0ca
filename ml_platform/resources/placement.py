"""Which placement is active: `--placement`, else ML_PLATFORM_PLACEMENT, else `local`."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from ml_platform.errors import SpecError, nearest
from ml_platform.specs.placements import Placement


def load_placement(name: str | None = None) -> Placement:
    """The named placement. `local` is built in; others are YAML files that say only what differs.

    Files are looked for in $ML_PLATFORM_PLACEMENTS, by default `deployments/placements` here.

    Raises:
        SpecError: No such placement, or its file says what a placement cannot.
    """
    name = name or os.environ.get("ML_PLATFORM_PLACEMENT") or "local"
    files = {path.stem: path for path in sorted(_folder().glob("*.yaml"))}
    if name not in files:
        if name == "local":
            return Placement()
        raise SpecError(f"no placement {name!r} in {_folder()}", hint=nearest(name, {"local", *files}))
    return _read(files[name])


def _folder() -> Path:
    return Path(os.environ.get("ML_PLATFORM_PLACEMENTS", "deployments/placements"))


def _read(path: Path) -> Placement:
    import yaml

    try:
        values = yaml.safe_load(path.read_text()) or {}
        return Placement.model_validate({"name": path.stem, **values})
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        raise SpecError(f"placement file {path} cannot be used", got=error) from error
