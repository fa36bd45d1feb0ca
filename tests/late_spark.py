"""A Spark that never comes up, as on a cluster that has no room: its `spark-submit` says no more."""

from __future__ import annotations

from pathlib import Path

_SUBMIT = """\
#!/bin/sh
trap 'exit 0' TERM
touch "$SUBMITTED"
sleep 3600 &
wait
"""
"""It leaves with 0 when it is asked to end, for which PySpark would go on waiting."""


def never_ready(folder: Path) -> dict[str, str]:
    """Environment variables of a process that will wait for it.

    The file that `SUBMITTED` names is there from when it waits.
    """
    submit = folder / "spark" / "bin" / "spark-submit"
    submit.parent.mkdir(parents=True)
    submit.write_text(_SUBMIT)
    submit.chmod(0o755)
    return {"SPARK_HOME": str(folder / "spark"), "SUBMITTED": str(folder / "submitted")}
