"""Image classification: families trained on features of a network, or the network itself tuned."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from cyclopts import Parameter

from ml_platform import (
    BackboneSpec,
    FineTuneSpec,
    GateSpec,
    Horovod,
    KerasSpec,
    Spark,
    SplitSpec,
    XGBoostSpec,
    dag,
)
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
from tasks.images import (
    QUERY,
    ImageReport,
    apply_images,
    as_pixels,
    by_content,
    check_query,
    check_training,
    fit_images,
    load_images,
    query_images,
    report_images,
    score_images,
    show_mistakes,
)
from tasks.report import report_retrain
from tasks.train import fine_tune, train_keras, train_xgboost

Trainer = Literal["keras", "xgboost", "fine_tune"]


@dag(preflight=check_training)
def image_classification(
    source: str = "sklearn:digits",
    model: str | None = None,
    backbone: BackboneSpec = BackboneSpec(),
    split: SplitSpec = SplitSpec(),
    trainers: Annotated[tuple[Trainer, ...], Parameter(consume_multiple=True)] = ("keras", "xgboost"),
    keras: KerasSpec = KerasSpec(),
    xgboost: XGBoostSpec = XGBoostSpec(),
    tuning: FineTuneSpec = FineTuneSpec(),
    gate: GateSpec = GateSpec(),
    score: str | None = None,
    predictions: str | None = None,
    query: str = QUERY,
) -> ImageReport:
    """Learn to tell images apart: features of a backbone, then Keras on Horovod ranks and XGBoost on Spark.

    Args:
        source: Images, each in a folder named after its class: a folder, a glob or a URI. sklearn:digits:
            real handwritten digits, written as PNG files first.
        model: Name in the model registry. Empty: named after the source.
        backbone: What turns images into features.
        split: How images are dealt into train, validation and holdout: by their content, so that copies of
            one image stay together.
        trainers: What is trained; the best of them on validation is the challenger. keras and xgboost learn
            from features of the backbone; fine_tune from the images themselves.
        keras: The network on top of the features.
        xgboost: The trees on top of the features.
        tuning: The network of fine_tune: the backbone with a head, or one from scratch.
        gate: When a challenger replaces the champion.
        score: Images to score with the champion. Empty: those of the source.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
        query: SQL that is asked at the end, in which the champion is the function classify(content), and the
            images that were scored are the view images (path, label, content).
    """
    name = model or f"{PurePath(source.removeprefix('sklearn:')).name.split('.')[0]}-images"
    split = by_content(split)
    asked = check_query(query)
    images = load_images(source)
    found = find_problem(images, "auto")
    parts = split_table(images.data, split, found)
    state = fit_images(parts.train, backbone)
    models = []
    if "keras" in trainers or "xgboost" in trainers:
        learnt = (
            apply_images(parts.train, state),
            apply_images(parts.validation, state),
            state,
            parts,
            split,
        )
        if "keras" in trainers:
            models.append(train_keras(*learnt, keras, job=Horovod(ranks=keras.ranks, max_restarts=1)))
        if "xgboost" in trainers:
            models.append(train_xgboost(*learnt, xgboost, spark=Spark(slots=xgboost.workers)))
    if "fine_tune" in trainers:
        pixels = as_pixels(state)
        seen = (apply_images(parts.train, pixels), apply_images(parts.validation, pixels))
        job = Horovod(ranks=tuning.ranks, max_restarts=1)
        models.append(fine_tune(*seen, pixels, state, parts, split, tuning, job=job))

    candidates = [measure_model(each, parts.validation, "validation") for each in models]
    best = choose_challenger(candidates, gate)
    challenger = measure_model(best, parts.holdout, "holdout")
    show_mistakes(challenger, parts.holdout)
    champion = find_champion(name, best)
    champion_on_holdout = measure_champion(champion, parts.holdout)

    verdict = judge(challenger, champion, champion_on_holdout, parts.holdout, state, split, gate, name)
    card = write_card(
        name, images, found, parts, split, state, candidates, challenger, verdict, importance={}
    )
    winner = promote(challenger, verdict, champion, name, card)
    scored = score_images(winner, score or source, predictions)
    answer = query_images(winner, score or source, asked)
    report = report_retrain(
        images, found, candidates, challenger, champion_on_holdout, verdict, winner, scored, parts
    )
    return report_images(report, answer)


if __name__ == "__main__":
    image_classification.cli()
