"""Image classification: features from a network, two families trained on them, the better one serves."""

from __future__ import annotations

from pathlib import PurePath

from ml_platform import BackboneSpec, GateSpec, Horovod, KerasSpec, Spark, SplitSpec, XGBoostSpec, dag
from tasks.data import find_problem, split_table
from tasks.evaluate import (
    choose_challenger,
    find_champion,
    judge,
    measure_champion,
    measure_model,
    promote,
    write_card,
)
from tasks.images import apply_images, by_content, fit_images, load_images, score_images, show_mistakes
from tasks.report import RetrainReport, report_retrain
from tasks.train import train_keras, train_xgboost


@dag
def image_classification(
    source: str = "sklearn:digits",
    model: str | None = None,
    backbone: BackboneSpec = BackboneSpec(),
    split: SplitSpec = SplitSpec(),
    keras: KerasSpec = KerasSpec(),
    xgboost: XGBoostSpec = XGBoostSpec(),
    gate: GateSpec = GateSpec(),
    score: str | None = None,
    predictions: str | None = None,
) -> RetrainReport:
    """Learn to tell images apart: features of a backbone, then Keras on Horovod ranks and XGBoost on Spark.

    Args:
        source: Images, each in a folder named after its class: a folder, a glob or a URI. sklearn:digits:
            real handwritten digits, written as PNG files first.
        model: Name in the model registry. Empty: named after the source.
        backbone: What turns images into features.
        split: How images are dealt into train, validation and holdout: by their content, so that copies of
            one image stay together.
        keras: The network on top of the features.
        xgboost: The trees on top of the features.
        gate: When a challenger replaces the champion.
        score: Images to score with the champion. Empty: those of the source.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
    """
    name = model or f"{PurePath(source.removeprefix('sklearn:')).name.split('.')[0]}-images"
    split = by_content(split)
    images = load_images(source)
    found = find_problem(images, "auto")
    parts = split_table(images.data, split, found)
    state = fit_images(parts.train, backbone)
    train, validation = apply_images(parts.train, state), apply_images(parts.validation, state)

    network = train_keras(
        train, validation, state, parts, split, keras, job=Horovod(ranks=keras.ranks, max_restarts=1)
    )
    trees = train_xgboost(train, validation, state, parts, split, xgboost, spark=Spark(slots=xgboost.workers))

    candidates = [measure_model(each, parts.validation, "validation") for each in (network, trees)]
    challenger = measure_model(choose_challenger(candidates, gate), parts.holdout, "holdout")
    show_mistakes(challenger, parts.holdout)
    champion = find_champion(name)
    champion_on_holdout = measure_champion(champion, parts.holdout)

    verdict = judge(challenger, champion, champion_on_holdout, parts.holdout, state, split, gate, name)
    card = write_card(
        name, images, found, parts, split, state, candidates, challenger, verdict, importance={}
    )
    winner = promote(challenger, verdict, champion, name, card)
    scored = score_images(winner, score or source, predictions)
    return report_retrain(
        images, found, candidates, challenger, champion_on_holdout, verdict, winner, scored, parts
    )


if __name__ == "__main__":
    image_classification.cli()
