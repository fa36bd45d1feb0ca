"""The page about features: its state is one, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from ml_platform.features.treatments import FITTING
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


def test_the_state_on_the_page_is_one() -> None:
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, {})


def test_the_table_says_which_treatments_fit() -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \| `(\w+)`[^|]*\| (.*)\|$", PAGE, re.MULTILINE)
    said = {
        name: (first, *re.findall(r"`(\w+)`", others))
        for names, first, others in rows
        for name in names.split(", ")
    }
    assert {name: set(fitting) for name, fitting in said.items()} == {
        name: set(fitting) for name, fitting in FITTING.items()
    }
    assert {name: fitting[0] for name, fitting in said.items()} == {
        name: fitting[0] for name, fitting in FITTING.items()
    }


def test_every_setting_on_the_page_is_there_with_its_value() -> None:
    spec, own = FeatureSpec.model_fields, ColumnFeatures.model_fields
    named = re.findall(r"--features\.([\w.]+)", PAGE)
    for name in named:
        field = name.rpartition(".")[2]
        assert field in (own if name.startswith("columns.") else spec) or field == "SETTING"
    for field, value in {"vocabulary": "256", "hash_above": "1,000", "buckets": "64"}.items():
        assert f"{spec[field].default:,}" == value
        assert value in PAGE
    assert (spec["target_folds"].default, spec["target_smoothing"].default) == (5, 20)
