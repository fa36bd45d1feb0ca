"""Features of images as others make them: see `featurisers.py`. In our own environment, which has all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exchange
from featurisers import alone, on_spark
from prepared import difference, write_images


def featurise(side: str, images: int, **question: Any) -> dict[str, Any]:
    """`images`: how many there are. `only`: how many of them; the seconds are those of all, in proportion."""
    only = question.pop("only", images)
    if side == "alone":
        seconds, rows = exchange.timed(lambda: alone(**question))
    else:
        seconds, rows = exchange.timed(lambda: on_spark(side, only=only, **question))
    return {"seconds": seconds * images / only, "value": rows}


def prepare(folder: str, images: int, files: int) -> dict[str, Any]:
    write_images(Path(folder), images, files)
    return {"value": images}


def answer(what: str, **question: Any) -> dict[str, Any]:
    if what == "difference":
        return {"value": difference(question["folders"])}
    return {"featurise": featurise, "prepare": prepare}[what](**question)


if __name__ == "__main__":
    exchange.serve(answer)
