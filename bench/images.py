"""B9: features of images on Spark: against a row UDF, `predict_batch_udf` and one process; three layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from bench.context import Context, compared, say
from bench.pairing import Block
from bench.report import Row
from bench.sides import WrongAnswerError, rounds

SHOWN = {
    "row_udf": "a row UDF with model.predict",
    "predict_batch_udf": "predict_batch_udf after a pandas UDF that decodes",
    "alone": "one process on all cores",
}
TARGETS = {"row_udf": 1 / 20, "predict_batch_udf": 1 / 1.5, "alone": 1 / 0.8}
LAYERS_TARGET = 1.2
"""Time of three layers over that of one."""
SIZE = 96
FILES = 8
CLOSE = 1e-3
"""Largest difference, as a share of the largest feature: convolutions are summed up in another order."""


def run(context: Context) -> Iterator[Row]:
    images, few, count = context.pick(512, 4096), context.pick(32, 128), context.pick(3, 5)
    say(f"B9: {images:,} JPEG files of 256 × 256 pixels, MobileNetV3-Small at {SIZE}, {count} rounds")
    source, networks = context.home(), {layers: f"{context.home()}.keras" for layers in (1, 3)}
    outs: dict[str, str] = {}
    with context.driver("ours_images") as ours, context.driver("images") as theirs:
        theirs.ask(what="prepare", folder=source, images=images, files=FILES)
        for layers, network in networks.items():
            ours.ask(what="prepare", source=source, network=network, size=SIZE, layers=layers, images=images)

        def our_block(layers: int) -> Block:
            outs[f"ours {layers}"] = out = context.home()
            question = {"what": "featurise", "network": networks[layers], "out": out}
            return context.block(ours, {"value": images}, **question)

        def their_block(side: str) -> Block:
            outs[side] = out = context.home()
            fewer = {"only": few} if side == "row_udf" else {}
            question = {"source": source, "network": networks[1], "size": SIZE, "out": out, "images": images}
            expected = {"value": few if fewer else images}
            return context.block(theirs, expected, what="featurise", side=side, **question, **fewer)

        sides: dict[str, Callable[[], Block]] = {
            **{f"ours {layers}": partial(our_block, layers) for layers in networks},
            **{side: partial(their_block, side) for side in TARGETS},
        }
        for side in sides.values():
            side()  # Spark's first query, and imports in its workers
        for side in TARGETS:
            far = float(theirs.ask(what="difference", folders=[outs["ours 1"], outs[side]])["value"])
            if far > CLOSE:
                raise WrongAnswerError(f"{side}: features differ from ours by {far:g}, at most {CLOSE:g}")
        blocks = rounds(sides, count)
    case = f"{images:,} images, one layer"
    for side, target in TARGETS.items():
        pair = (blocks["ours 1"], blocks[side])
        # Spark's own second is most of the smoke size's time: it says nothing against a process without it.
        wanted = context.pick(None, target) if side == "alone" else target
        yield compared(context, "B9", case, SHOWN[side], pair, target=wanted)
    pair = (blocks["ours 3"], blocks["ours 1"])
    yield compared(context, "B9", f"{images:,} images, three layers", "one layer", pair, target=LAYERS_TARGET)
