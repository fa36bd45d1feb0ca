"""How fast ranks trained together, and where their time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.evaluation.pictures import BLUE, GREY, ORANGE, _figure, _plain
from ml_platform.specs.base import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASES = ("launch", "compute", "allreduce", "validation", "feed")
COLORS = {"launch": GREY, "compute": BLUE, "allreduce": ORANGE, "validation": "#5a9a68", "feed": "#b9c7d9"}


class Speed(Spec):
    """What a job of ranks achieved.

    `rows_per_second` is the median over its epochs, over all ranks, without the first one, in which the step
    is compiled. `seconds` has, for each rank, what it spent in which phase.
    """

    ranks: int
    rows_per_second: float
    alone_rows_per_second: float | None
    seconds: tuple[dict[str, float], ...]

    @property
    def efficiency(self) -> float | None:
        """Rows per second and rank, as a share of what one rank alone did; None where none did."""
        if not self.alone_rows_per_second:
            return None
        return self.rows_per_second / self.ranks / self.alone_rows_per_second

    def metrics(self) -> dict[str, float]:
        """As a tracking run takes them: the slowest rank's seconds of each phase."""
        found = {
            "speed.rows_per_second": self.rows_per_second,
            "speed.rows_per_second_and_rank": self.rows_per_second / self.ranks,
        }
        if self.efficiency is not None:
            found["speed.scaling_efficiency"] = self.efficiency
        for phase in PHASES:
            found[f"seconds.{phase}"] = max((of.get(phase, 0.0) for of in self.seconds), default=0.0)
        return found


def speed_of(
    rows_per_second: Sequence[float],
    seconds: Sequence[Mapping[str, float]],
    *,
    launch_s: float,
    alone_rows_per_second: float | None,
) -> Speed:
    """
    >>> speed = speed_of([10, 100, 120, 110], [{"compute": 2.0}] * 2, launch_s=9, alone_rows_per_second=60)
    >>> speed.rows_per_second, round(speed.efficiency, 3), speed.seconds[0]
    (110.0, 0.917, {'launch': 9, 'compute': 2.0})
    """
    warm = rows_per_second[1:] or rows_per_second
    return Speed(
        ranks=len(seconds),
        rows_per_second=float(np.median(warm)),
        alone_rows_per_second=alone_rows_per_second,
        seconds=tuple({"launch": launch_s, **of} for of in seconds),
    )


def draw_speed(speed: Speed, rows_per_second: Sequence[float], title: str) -> Figure:
    """Rows per second of each epoch, and what each rank did meanwhile.

    Args:
        rows_per_second: Of each epoch, over all ranks.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(10.4, 2.6 + 0.3 * max(speed.ranks, 2))
    figure.suptitle(title, fontsize=12)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(rows_per_second) + 1)
    left.plot(
        epochs,
        rows_per_second,
        color=BLUE,
        marker="o",
        markersize=3,
        label=f"{speed.ranks} rank{'s' * (speed.ranks > 1)}",
    )
    if speed.alone_rows_per_second:
        ideal = speed.alone_rows_per_second * speed.ranks
        left.axhline(ideal, color=GREY, linestyle=":", label=f"{speed.ranks} × one rank alone")
    left.set(xlabel="epoch", ylabel="rows per second", xlim=(0.5, len(epochs) + 0.5), ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    left.legend(frameon=False, loc="lower right")
    said = f"{speed.rows_per_second:,.0f} rows/s"
    if speed.efficiency is not None:
        said += f", {speed.efficiency:.0%} of ideal scaling"
    left.set_title(said, fontsize=9, color=GREY)
    begun = np.zeros(speed.ranks)
    places = np.arange(speed.ranks)
    for phase in PHASES[:-1]:
        values = np.array([of.get(phase, 0.0) for of in speed.seconds])
        right.barh(places, values, left=begun, height=0.5, color=COLORS[phase], label=phase)
        begun += values
    feed = [of.get("feed", 0.0) for of in speed.seconds]
    launch = [of.get("launch", 0.0) for of in speed.seconds]
    right.barh(
        places + 0.36, feed, left=launch, height=0.14, color=COLORS["feed"], label="feed (beside them)"
    )
    right.set_yticks(places, [f"rank {rank}" for rank in places])
    right.invert_yaxis()
    right.set_xlabel("seconds")
    right.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    _plain(left, right)
    return figure
