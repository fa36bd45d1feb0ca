"""Lines from ranks to whoever called `HorovodRunner.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform.worker.main_function import current_rank

if TYPE_CHECKING:
    from ml_platform.worker.log_callback import DriverLog

LINE_CHARACTERS = 4000


def log_to_driver(message: str) -> None:
    """Print a line on the driver, whatever `driver_log_verbosity` is. From any rank.

    Args:
        message: What is longer than 4,000 characters is cut.
    Raises:
        UsageError: Called outside the main function of `HorovodRunner`.
    """
    rank = current_rank()
    text = str(message)
    cut = text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
    rank.tell(f"[{rank.rank}] {cut}")


def LogCallback(per_batch_log: bool = False) -> DriverLog:  # noqa: N802  (the original is a class)
    """A Keras callback that prints the values of each epoch on the driver, as rank 0 sees them.

    Args:
        per_batch_log: Those of each batch as well.
    """
    from ml_platform.worker.log_callback import DriverLog

    return DriverLog(per_batch_log)
