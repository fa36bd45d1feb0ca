"""Search spaces: read as people write them, refused where no point of them could be trained."""

from __future__ import annotations

import pytest

from ml_platform.errors import SpecError
from ml_platform.specs.base import Spec
from ml_platform.specs.references import ModelFamily
from ml_platform.specs.training import FineTuneSpec, KerasSpec, MLlibSpec, SklearnSpec, XGBoostSpec
from ml_platform.specs.tuning import Choice, Range
from ml_platform.tuning.spaces import SPACES, parse, read_space, written

BASES: dict[ModelFamily, Spec] = {
    "keras": KerasSpec(),
    "xgboost": XGBoostSpec(),
    "sklearn": SklearnSpec(),
    "mllib": MLlibSpec(),
    "fine_tuned": FineTuneSpec(),
}


@pytest.mark.parametrize("family", SPACES)
def test_every_family_has_a_space_that_its_spec_takes(family: ModelFamily) -> None:
    assert read_space(family, {}, BASES[family]).dimensions


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("2..8", Range(low=2, high=8)),
        ("-1 .. 1e-3", Range(low=-1, high=1e-3)),
        ("1e-4..1e-1 log", Range(low=1e-4, high=0.1, log=True)),
        ("0..1 step 0.25", Range(low=0, high=1, step=0.25)),
        ("relu | tanh", Choice(values=("relu", "tanh"))),
        ("[64] | [128, 64]", Choice(values=([64], [128, 64]))),
        ("true", Choice(values=(True,))),
        (
            "0..0.5 if hidden = [256, 128] | [512]",
            Range(low=0, high=0.5, when={"hidden": ([256, 128], [512])}),
        ),
    ],
)
def test_a_dimension_is_what_its_text_says_and_back(text: str, dimension: Range | Choice) -> None:
    assert parse("here", text) == dimension
    assert parse("here", written(dimension)) == dimension


def test_a_space_that_is_given_takes_the_place_of_the_default_one() -> None:
    space = read_space("xgboost", {"xgboost": {"depth": Range(low=2, high=3)}}, XGBoostSpec())
    assert space.dimensions == {"depth": Range(low=2, high=3)}


@pytest.mark.parametrize(
    ("family", "field", "text", "said"),
    [
        ("xgboost", "depth", "8..2", "no valid point: xgboost.depth: no number lies from 8 to 2"),
        ("xgboost", "depth", "2..99", "no valid point: xgboost.depth cannot be 99"),
        ("xgboost", "depth", "2.5..3", "no valid point: xgboost.depth cannot be 2.5"),
        ("xgboost", "rate", "0..1 log", "begins above 0"),
        ("keras", "hidden", "[64] | wide", "no valid point: keras.hidden cannot be wide"),
        ("keras", "hidden", "1..3", "keras.hidden is no number"),
        ("keras", "shuffle", "0..1", "keras.shuffle is no number"),
        ("keras", "widht", "1..3", "there is no field keras.widht"),
        ("keras", "ranks", "1 | 2", "keras.ranks sizes a resource"),
        ("keras", "dropout", "0..0.5 if hiden = [64]", "not asked for before it"),
    ],
)
def test_a_space_without_a_valid_point_is_refused_with_its_reason(
    family: ModelFamily, field: str, text: str, said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        read_space(family, {family: {field: text}}, BASES[family])
    assert said in str(refused.value)


def test_a_condition_that_never_holds_is_refused() -> None:
    asked = {"keras": {"hidden": "[64] | [32]", "dropout": "0..0.5 if hidden = [128]"}}
    with pytest.raises(SpecError, match=r"keras\.dropout is never asked for"):
        read_space("keras", asked, KerasSpec())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("estimator", 'search it too, before this one: --space.sklearn.estimator "A | B"'),
        ("estimatr", "did you mean 'estimator'?"),
    ],
)
def test_a_condition_on_what_is_not_searched_says_what_to_write(other: str, said: str) -> None:
    asked = {"sklearn": {"l2": f"0.1..1 if {other} = boosting"}}
    with pytest.raises(SpecError, match=f"sklearn.l2 depends on '{other}', which is not asked") as refused:
        read_space("sklearn", asked, SklearnSpec())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("field", "line", "said"),
    [
        ("rate", "0.02..0.5 log", 'a grid takes no logarithmic range: --space.xgboost.rate "A | B | C"'),
        ("subsample", "0.5..1", '--space.xgboost.subsample "0.5..1 step S", or "A | B | C"'),
    ],
)
def test_a_grid_of_a_range_without_a_step_is_refused_with_what_can_be_written(
    field: str, line: str, said: str
) -> None:
    with pytest.raises(SpecError, match=rf"a grid has no end: xgboost\.{field}") as refused:
        read_space("xgboost", {"xgboost": {field: line}}, XGBoostSpec(), "grid")
    assert said in str(refused.value)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(SpecError, match="no family 'xgbost'") as refused:
        read_space("xgboost", {"xgbost": {"depth": "1..2"}}, XGBoostSpec())
    assert "did you mean 'xgboost'?" in str(refused.value)
