"""The gate: promotes what is better, says so in numbers, and is rarely fooled by an equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import SpecError, StoreError
from ml_platform.evaluation.bootstrap import cautious_mean_interval
from ml_platform.evaluation.gate import choose_challenger, decide, holdout_note, judge, paired_gain
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Evaluation, Metric, Model
from ml_platform.specs.tables import FeatureState, SplitSpec
from ml_platform.specs.training import GateSpec

STATE = FeatureState(classes=("no", "yes"), class_counts=(75, 25), label="left")
SPEC = GateSpec(resamples=500)
ROWS = 400


class Rows:
    """Writes evaluations with the losses that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = np.arange(ROWS, dtype=np.int64)
        self.labels = (self.keys % 4 == 0).astype(np.int32)

    def evaluation(
        self, losses: np.ndarray, name: str, *, keys: np.ndarray | None = None, **changes: object
    ) -> Evaluation:
        rows = len(losses)
        keys = self.keys[:rows] if keys is None else keys
        columns = {"row_key": keys, "label": self.labels[:rows], "log_loss": losses}
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        return Evaluation.model_validate(
            {
                "model": _model(name),
                "part": "holdout",
                "data_fingerprint": "a" * 32,
                "rows": rows,
                "metrics": {"log_loss": Metric(value=float(losses.mean()), low=0, high=1)},
                "rows_uri": path.as_uri(),
                **changes,
            }
        )


def _model(name: str, **changes: object) -> Model:
    contract = Contract(columns=(Column(name="age", type="float"),))
    values = {"uri": f"models:/{name}", "family": "keras", "run_id": "r", "digest": "d", "contract": contract}
    return Model.model_validate({**values, "classes": ("no", "yes"), **changes})


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


@pytest.fixture
def losses() -> np.ndarray:
    return np.random.default_rng(0).gamma(1, 0.3, ROWS)


def test_promotes_what_is_better_than_the_champion(rows: Rows, losses: np.ndarray) -> None:
    champion = rows.evaluation(losses + np.random.default_rng(1).normal(0.1, 0.2, ROWS), "old")
    verdict = decide(
        rows.evaluation(losses, "new"), champion, STATE, SPEC, holdout_uses=3, champion_uri="models:/m/4"
    )
    assert verdict.decision == "promote"
    assert verdict.against == "models:/m/4"
    assert verdict.holdout_uses == 3
    assert verdict.rows == ROWS
    assert verdict.gain is not None
    assert 0 < verdict.gain.low < verdict.gain.value < verdict.gain.high
    assert verdict.reason == (
        f"Better than the champion: the log loss is {verdict.gain.value:.4f} lower than its "
        f"{pq.read_table(rows.folder / 'old.parquet')['log_loss'].to_numpy().mean():.4f} "
        f"(95% interval {verdict.gain.low:+.4f} to {verdict.gain.high:+.4f}, 400 rows)."
    )


def test_rejects_what_is_worse(rows: Rows, losses: np.ndarray) -> None:
    verdict = decide(rows.evaluation(losses + 0.2, "new"), rows.evaluation(losses, "old"), STATE, SPEC)
    assert verdict.decision == "reject"
    assert verdict.reason.startswith("Worse than the champion: the log loss is 0.2000 higher than its ")


def test_holds_what_may_be_equal(rows: Rows, losses: np.ndarray) -> None:
    noise = np.random.default_rng(2).normal(0, 0.2, ROWS)
    noise -= noise.mean()
    verdict = decide(rows.evaluation(losses + noise, "new"), rows.evaluation(losses, "old"), STATE, SPEC)
    assert verdict.decision == "hold"
    assert verdict.reason.startswith("Not shown to be better than the champion")


def test_holds_what_is_better_by_less_than_the_margin(rows: Rows, losses: np.ndarray) -> None:
    spec = GateSpec(resamples=500, margin=0.2)
    verdict = decide(rows.evaluation(losses, "new"), rows.evaluation(losses + 0.1, "old"), STATE, spec)
    assert verdict.decision == "hold"
    assert "but not by the margin of 0.2" in verdict.reason


def test_holds_the_same_model(rows: Rows, losses: np.ndarray) -> None:
    verdict = decide(rows.evaluation(losses, "new"), rows.evaluation(losses, "old"), STATE, SPEC)
    assert verdict.decision == "hold"
    assert verdict.reason == (
        f"Exactly as good as the champion: the log loss is its {losses.mean():.4f}, the same in all 400 rows."
    )


def test_the_night_after_a_promotion_says_that_nothing_was_trained(rows: Rows, losses: np.ndarray) -> None:
    """The champion is another one since then, so that it is measured; by the model that it is."""
    itself = rows.evaluation(losses, "new")
    verdict = decide(itself, itself, STATE, SPEC, champion_uri="models:/m/4")
    assert verdict.decision == "hold"
    assert verdict.reason == (
        "The challenger is the champion itself, models:/m/4: nothing better was trained since its promotion."
    )


def test_without_a_champion_the_trivial_predictor_is_the_bar(rows: Rows) -> None:
    """Its loss is -log of the class's share in training: 0.2877 for 'no', 1.3863 for 'yes'."""
    good = decide(rows.evaluation(np.full(ROWS, 0.2), "new"), None, STATE, SPEC)
    assert (good.decision, good.against) == ("promote", "trivial predictor")
    assert good.gain is not None
    assert good.gain.value == pytest.approx(0.75 * 0.28768 + 0.25 * 1.38629 - 0.2, abs=1e-4)
    bad = decide(rows.evaluation(np.full(ROWS, 0.9), "bad"), None, STATE, SPEC)
    assert bad.decision == "reject"
    assert "Worse than the trivial predictor" in bad.reason


def test_too_few_rows_cannot_tell(rows: Rows) -> None:
    few = rows.evaluation(np.zeros(29), "new")
    verdict = decide(few, None, STATE, SPEC)
    assert verdict.decision == "cannot tell"
    assert verdict.gain is None
    assert verdict.reason == "The holdout has 29 rows; 30 are needed to tell (--gate.minimum-rows)."


def test_too_few_rows_of_a_class_cannot_tell_and_name_it(rows: Rows, losses: np.ndarray) -> None:
    """400 rows, but 12 of them of one class: whether that class got worse nobody knows."""
    rows.labels = (np.arange(ROWS) < 12).astype(np.int32)
    verdict = decide(rows.evaluation(losses, "new"), None, STATE, SPEC)
    assert (verdict.decision, verdict.gain) == ("cannot tell", None)
    assert (
        verdict.reason
        == "Class 'yes' has 12 rows in the holdout; 30 are needed to tell (--gate.minimum-rows)."
    )
    rows.labels[:] = 0
    alone = decide(rows.evaluation(losses, "new"), None, STATE, SPEC)
    assert (
        alone.reason == "Class 'yes' has 0 rows in the holdout; 30 are needed to tell (--gate.minimum-rows)."
    )
    few = GateSpec(resamples=500, minimum_rows=2)
    rows.labels[:2] = 1
    assert decide(rows.evaluation(losses, "new"), None, STATE, few).decision != "cannot tell"


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"data_fingerprint": "b" * 32}, "measured on other rows"),
        ({"part": "validation"}, "measured on other rows"),
        ({"model": _model("old", classes=("no", "maybe"))}, "only one of the two knows maybe, yes"),
        (
            {"model": _model("old", contract=Contract(columns=(Column(name="age", type="string"),)))},
            "reads other columns; they differ in age",
        ),
    ],
    ids=["fingerprint", "part", "classes", "contract"],
)
def test_what_cannot_be_paired_is_not_compared(
    rows: Rows, losses: np.ndarray, changes: dict[str, object], because: str
) -> None:
    champion = rows.evaluation(losses + 1, "old", **changes)
    verdict = decide(rows.evaluation(losses, "new"), champion, STATE, SPEC)
    assert verdict.decision == "not comparable"
    assert because in verdict.reason


def test_rows_with_other_keys_are_not_compared(rows: Rows, losses: np.ndarray) -> None:
    champion = rows.evaluation(losses + 1, "old", keys=rows.keys + 1)
    verdict = decide(rows.evaluation(losses, "new"), champion, STATE, SPEC)
    assert (verdict.decision, verdict.gain) == ("not comparable", None)


def test_another_split_is_not_compared(rows: Rows, losses: np.ndarray) -> None:
    """The champion may have been trained on rows of this holdout."""
    champion = rows.evaluation(losses + 1, "old")
    splits = (SplitSpec(), SplitSpec(salt="another"))
    verdict = decide(rows.evaluation(losses, "new"), champion, STATE, SPEC, splits=splits)
    assert verdict.decision == "not comparable"
    assert "another split" in verdict.reason


def test_a_further_column_is_compared_where_rows_keep_their_part(rows: Rows, losses: np.ndarray) -> None:
    """A table that grows a column must not end all promotions; the champion reads the same rows as before."""
    fewer = _model("old", contract=Contract(columns=(Column(name="size", type="float"),)))
    champion = rows.evaluation(losses + 1, "old", model=fewer)
    keyed, by_all = SplitSpec(key_columns=("id",)), SplitSpec()
    challenger = rows.evaluation(losses, "new")
    assert decide(challenger, champion, STATE, SPEC, splits=(keyed, keyed)).decision == "promote"
    verdict = decide(challenger, champion, STATE, SPEC, splits=(by_all, by_all))
    assert (verdict.decision, "--split.key-columns" in verdict.reason) == ("not comparable", True)


def test_an_evaluation_on_validation_cannot_pass_the_gate(rows: Rows, losses: np.ndarray) -> None:
    with pytest.raises(SpecError, match="decides on the holdout"):
        decide(rows.evaluation(losses, "new", part="validation"), None, STATE, SPEC)


def test_rows_that_are_gone_are_an_error_of_the_store(rows: Rows, losses: np.ndarray, tmp_path: Path) -> None:
    challenger = rows.evaluation(losses, "new")
    (tmp_path / "new.parquet").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        decide(challenger, None, STATE, SPEC)


def test_the_same_evidence_gives_the_same_verdict(rows: Rows, losses: np.ndarray) -> None:
    new, old = rows.evaluation(losses, "new"), rows.evaluation(losses[::-1].copy(), "old")
    assert decide(new, old, STATE, SPEC) == decide(new, old, STATE, SPEC)


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
"""Gains of an equal challenger, shape (holdouts, rows)."""


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Two equals: the same hard rows, each model its own noise. Heavy tails, as losses have."""
    hard = rng.gamma(0.3, 1.0, shape)
    return hard * rng.lognormal(0, 0.5, shape) - hard * rng.lognormal(0, 0.5, shape)


def _networks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Two equals: one classifier of five classes, disturbed twice."""
    truth = rng.normal(0, 1, (*shape, 5))
    label = truth.argmax(axis=-1)[..., None]
    first, second = (4 * (truth + rng.normal(0, 0.5, truth.shape)) for _ in range(2))
    return _log_loss(first, label) - _log_loss(second, label)


def _log_loss(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.log(np.exp(scores).sum(axis=-1)) - np.take_along_axis(scores, label, axis=-1)[..., 0]


def _disasters(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A challenger that is a little better mostly, far worse at times, and no better in the mean."""
    return 1 - rng.exponential(1, shape)


@pytest.mark.parametrize("rows", [30, 100])
@pytest.mark.parametrize("draw", [_heavy, _networks, _disasters])
def test_an_equal_challenger_is_promoted_no_more_often_than_the_gate_says(draw: Draw, rows: int) -> None:
    """At most 2.5 % of the time at confidence 0.95, as `holdout_note` tells people; with few rows, too.

    So many promotions as were seen, or fewer, would be seen of such a gate once in a thousand simulations.
    """
    from scipy.stats import binom

    spec, holdouts = GateSpec(), 3_000
    assert "promoted by luck 2.5% of the time at most" in holdout_note(2, spec)
    gains = draw(np.random.default_rng(11), (holdouts, rows))
    low, _ = cautious_mean_interval(gains, resamples=200, confidence=spec.confidence, seed=spec.seed)
    promoted = int((low > spec.margin).sum())
    assert promoted <= binom.ppf(0.999, holdouts, (1 - spec.confidence) / 2)
    assert promoted > 0, "a gate that never promotes an equal would prove nothing here"


def test_one_holdout_is_judged_as_many_at_once_are() -> None:
    """What the simulation calls is what the gate calls."""
    spec, gains = GateSpec(resamples=200), _heavy(np.random.default_rng(3), (5, 60))
    low, high = cautious_mean_interval(gains, resamples=200, confidence=0.95, seed=spec.seed)
    alone = [paired_gain(np.zeros(60), gain, spec) for gain in gains]
    np.testing.assert_allclose([[each.low, each.high] for each in alone], np.stack([low, high], 1))
    assert [judge(each, spec) == "promote" for each in alone] == (low > 0).tolist()


def test_a_better_challenger_is_mostly_promoted() -> None:
    """Caution costs little: a gain of four standard errors passes in at least 95 of 100 holdouts."""
    rng = np.random.default_rng(12)
    spec = GateSpec(resamples=400)
    gains = (rng.normal(4 / np.sqrt(400), 1, 400) for _ in range(100))
    assert sum(judge(paired_gain(np.zeros(400), gain, spec), spec) == "promote" for gain in gains) >= 95


def test_the_challenger_is_the_best_on_validation(rows: Rows) -> None:
    first, second = (
        rows.evaluation(np.full(50, loss), name, part="validation") for loss, name in ((0.3, "a"), (0.2, "b"))
    )
    assert choose_challenger([first, second]) is second
    better = Metric(value=0.9, low=0.8, high=1), Metric(value=0.7, low=0.6, high=0.8)
    pair = [
        e.model_copy(update={"metrics": {"accuracy": m}})
        for e, m in zip((first, second), better, strict=True)
    ]
    assert choose_challenger(pair, "accuracy") is pair[0]


def test_a_challenger_is_not_chosen_on_the_holdout(rows: Rows, losses: np.ndarray) -> None:
    with pytest.raises(SpecError, match="measured on validation") as caught:
        choose_challenger([rows.evaluation(losses, "a")])
    assert "keras on holdout" in str(caught.value)
    with pytest.raises(SpecError, match="measured on validation"):
        choose_challenger([])


def test_a_metric_that_the_models_do_not_have_is_refused(rows: Rows, losses: np.ndarray) -> None:
    validated = rows.evaluation(losses, "a", part="validation")
    with pytest.raises(SpecError, match=r"no metric 'rmse'(.|\n)*one of log_loss, for binary"):
        choose_challenger([validated], "rmse")
    with pytest.raises(SpecError, match="no metric 'mae'"):
        decide(rows.evaluation(losses, "a"), None, STATE, GateSpec(metric="mae"))
