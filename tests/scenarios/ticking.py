"""A tiny dag for the schedule test."""

from __future__ import annotations

from ml_platform import dag, task


@task
def tick(times: int) -> int:
    return times + 1


@dag
def ticking(times: int = 1) -> int:
    """Count one more."""
    return tick(times)


if __name__ == "__main__":
    ticking.cli()
