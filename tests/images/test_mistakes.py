"""The picture of mistakes: what it shows can be told from its text, and it can be looked at."""

from __future__ import annotations

from pathlib import Path

from ml_platform.images.mistakes import SHOWN, Mistake, draw_mistakes
from tests.images.pictures import encoded, gradient


def test_each_mistake_is_shown_with_what_it_is_and_what_it_was_taken_for(tmp_path: Path) -> None:
    mistakes = [
        Mistake(
            path=f"pets/{at}.png",
            label="cat",
            predicted=f"dog {at}",
            log_loss=9 - at,
            content=encoded(gradient()),
        )
        for at in range(7)
    ]
    figure = draw_mistakes(mistakes, "seven mistakes")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:7] == [f"cat, taken for dog {at}\n{at}.png" for at in range(7)]
    assert set(titles[7:]) == {""}
    assert [len(axes.images) for axes in figure.axes] == [1] * 7 + [0] * 3
    figure.savefig(tmp_path / "mistakes.png")
    assert (tmp_path / "mistakes.png").stat().st_size > 10_000


def test_names_of_folders_and_files_are_text(tmp_path: Path) -> None:
    """Two dollar signs are no formula, and a long name does not run into its neighbour."""
    mistake = Mistake(
        path=f"x/{'holiday' * 9}$_$.png",
        label="$_$",
        predicted="up to 10$, of 5$^",
        log_loss=1,
        content=encoded(gradient()),
    )
    figure = draw_mistakes([mistake], "one mistake")
    figure.savefig(tmp_path / "mistakes.png")
    assert max(map(len, figure.axes[0].get_title().replace("\\", "").splitlines())) <= 48


def test_no_mistake_is_a_picture_too() -> None:
    assert len(draw_mistakes([], "no mistakes").axes) == 5
    assert SHOWN % 5 == 0
