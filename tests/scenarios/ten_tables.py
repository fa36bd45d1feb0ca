"""Ten tables that differ in how they are written, in what is in them, is predicted, and how rows are dealt.

Three are real and bundled with scikit-learn and statsmodels; the others are made like ones that people have.
"""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import orc, parquet

from ml_platform.specs.problems import ProblemKind

NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
BALANCED = ("--xgboost.class-weight", "balanced")
TREES, NETWORK = ("--xgboost.trees", "15"), ("--keras.epochs", "4", "--keras.hidden", "16")


@dataclass(frozen=True)
class Case:
    """A table, how it is asked for, and what is sensible of it.

    Attributes:
        write: Puts it into a folder. Returns options beside `arguments`: where it lies, at least.
        metric: One on the holdout, and what it is at least.
        classes: Some names of classes, as they must come out.
        says: Parts of the model card or of the report's notes.
        scored: Rows of the table to score, where that is another one.
    """

    name: str
    write: Callable[[Path], list[str]]
    label: str
    problem: ProblemKind
    metric: tuple[str, float]
    arguments: tuple[str, ...] = ()
    decision: str = "promote"
    quarantined: int = 0
    classes: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    families: tuple[str, ...] = ("xgboost",)
    scored: int | None = None


def _bundled(name: str) -> Callable[[Path], list[str]]:
    return lambda _: ["--source", f"sklearn:{name}"]


def _voters(folder: Path) -> list[str]:
    """The American election study of 1996: a file of tabs in statsmodels, with names in single quotes."""
    package = importlib.util.find_spec("statsmodels")
    assert package is not None
    assert package.origin is not None
    return ["--source", str(Path(package.origin).parent / "datasets" / "anes96" / "anes96.csv")]


def _shops(folder: Path) -> list[str]:
    """Semicolons, Latin-1, compressed; umlauts in names and values, a few broken rows and empty labels."""
    rng, lines = np.random.default_rng(1), ["Kunde;Größe;Straße;Besuche;Umsatz;gekündigt"]
    for at in range(1500):
        place, visits = ("Köln", "Zürich", "Saarbrücken")[at % 3], int(rng.integers(0, 40))
        spent = "" if rng.random() < 0.1 else f"{rng.gamma(2, 80):.2f}"
        left = (visits < 12) != (rng.random() < 0.05)
        lines.append(
            f"K{at:05};{'groß' if at % 5 else 'klein'};{place};{visits};{spent};{'ja' if left else 'nein'}"
        )
    lines += ["K1;klein;Köln;3;1.5;ja;zu viel"] * 4 + ["K2;klein;Köln;3;1.5;"] * 3
    (folder / "läden.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode("latin-1")))
    return ["--source", str(folder / "läden.csv.gz")]


def _flats(folder: Path) -> list[str]:
    """One object per line: keys that lack, moments with zones, a text, a nested object, skewed prices."""
    rng, lines = np.random.default_rng(2), []
    for at in range(1200):
        area, days = float(rng.gamma(9, 9)), int(rng.integers(0, 900))
        words = " ".join(rng.choice(["sunny", "quiet", "old", "renovated", "garden", "loud"], 3))
        price = area * 3000 * (1.4 if "garden" in words else 1) * float(rng.lognormal(0, 0.1))
        sold = (NEW_YEAR + dt.timedelta(days=days, hours=at % 24)).astimezone(
            dt.timezone(dt.timedelta(hours=at % 5))
        )
        flat = {
            "area": round(area, 1),
            "sold at": sold.isoformat(),
            "text": f"A {words} flat near the station",
            "lift": bool(at % 3),
            "owner": {"name": "x"},
            "price": round(price, 2),
        }
        lines.append(json.dumps(flat if at % 7 else {k: v for k, v in flat.items() if k != "lift"}))
    (folder / "flats.jsonl").write_text("\n".join(lines))
    return ["--source", str(folder / "flats.jsonl")]


def _sensors(folder: Path) -> list[str]:
    """A folder of partitions; alarms are rare, and later rows are judged."""
    rng = np.random.default_rng(3)
    for site in ("north", "south"):
        heat = rng.normal(60, 12, 2000)
        table = {
            "at": [NEW_YEAR + dt.timedelta(hours=hour) for hour in range(2000)],
            "heat": pa.array(heat, pa.float32()),
            "turns": pa.array(rng.integers(800, 1200, 2000), pa.int16()),
            "alarm": (heat > 75) ^ (rng.random(2000) < 0.01),
        }
        (folder / "sensors" / f"site={site}").mkdir(parents=True)
        parquet.write_table(pa.table(table), folder / "sensors" / f"site={site}" / "a.parquet")
    return ["--source", str(folder / "sensors")]


def _visits(folder: Path) -> list[str]:
    """Several rows of each patient, who is in one part alone; a category of hundreds of values."""
    rng = np.random.default_rng(4)
    doctors, patients = rng.integers(0, 300, 2400), rng.integers(0, 400, 2400)
    wards = np.where(rng.random(2400) < 0.9, doctors % 4, rng.integers(0, 4, 2400))
    table = {
        "patient": pa.array([f"p-{at}" for at in patients]),
        "doctor": pa.array([f"Dr. {at}" for at in doctors]),
        "born": pa.array(
            [dt.date(1930, 1, 1) + dt.timedelta(days=int(at)) for at in rng.integers(0, 30_000, 2400)]
        ),
        "ward": pa.array([("heart", "eye", "skin", "bone")[at] for at in wards]),
    }
    orc.write_table(pa.table(table), folder / "visits.orc")
    return ["--source", str(folder / "visits.orc")]


def _signs(folder: Path) -> list[str]:
    """Tabs, no header, and more than a hundred classes, which are numbers with leading zeros."""
    rng, names = np.random.default_rng(5), [f"x{at}" for at in range(8)]
    places = rng.normal(0, 3, (110, 8))
    lines = []
    for at in range(110 * 200):
        point = places[at % 110] + rng.normal(0, 0.6, 8)
        lines.append("\t".join([*(f"{x:.3f}" for x in point), f"{at % 110:03}"]))
    (folder / "signs.tsv").write_text("\n".join(lines))
    return ["--source", str(folder / "signs.tsv"), "--reading.header", *names, "sign"]


def _reviews(folder: Path) -> list[str]:
    """A byte-order mark, quoted newlines, money; a number of each row, a constant, nothing, and a leak."""
    rng, rows = np.random.default_rng(6), ["id,review,paid,currency,notes,refund code,returned"]
    for at in range(1000):
        bad = rng.random() < 0.3
        words = "broke after a week,\nI want my money back" if bad else "works well,\nwould buy again"
        if rng.random() < 0.04:
            words = "it is what it is"
        code = f"R{at % 9}" if bad else "none"
        rows.append(f'{at},"{words}",{rng.gamma(3, 9):.2f},EUR,,{code},{"yes" if bad else "no"}')
    (folder / "reviews.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    (folder / "reviews.yaml").write_text("columns:\n  paid: decimal\n")
    return ["--source", str(folder / "reviews.csv"), "--schema", str(folder / "reviews.yaml")]


def _bikes(folder: Path) -> list[str]:
    """As pandas writes it, with a label named like a metric. To be scored is a table of another kind: a new
    value, a column that is empty there, and one that was empty here."""
    rng, n = np.random.default_rng(7), 1500
    hours = rng.integers(0, 24, n)
    weather = rng.choice(["clear", "rain", "snow"], n, p=[0.7, 0.2, 0.1])
    rented = 50 + 200 * np.exp(-((hours - 17) ** 2) / 18) * (weather == "clear") + rng.normal(0, 8, n)
    at = [
        NEW_YEAR.replace(tzinfo=None) + dt.timedelta(days=i // 24, hours=int(h)) for i, h in enumerate(hours)
    ]
    table = pa.table(
        {
            "key": pa.array(range(n)),
            "at": pa.array(at, pa.timestamp("ns")),
            "weather": pa.array(weather),
            "wind": pa.array(rng.gamma(2, 5, n)),
            "fee": pa.array([decimal.Decimal(i % 4) / 2 for i in range(n)], pa.decimal128(6, 2)),
            "humidity": pa.nulls(n, pa.float64()),
            "rmse": pa.array(np.maximum(rented, 0)),
        }
    )
    parquet.write_table(table, folder / "bikes.parquet")
    (folder / "new.csv").write_text(
        "key,at,weather,wind,fee,humidity\n"
        "9001,2024-05-01 17:00:00,clear,,1.50,0.5\n9002,2024-05-01 03:00:00,hail,,0.50,0.7\n"
    )
    return [
        "--source",
        str(folder / "bikes.parquet"),
        "--score",
        str(folder / "new.csv"),
        "--day",
        "2024-05-01",
    ]


CASES = [
    Case(
        "voters", _voters, "'vote'", "binary", ("roc_auc", 0.9),
        (*TREES, *NETWORK), classes=("0", "1"), families=("keras", "xgboost"),
    ),
    Case(
        "diabetes", _bundled("diabetes"), "target", "regression", ("r2", 0.1),
        decision="hold", families=("sklearn",),
    ),
    Case(
        "wine", _bundled("wine"), "label", "multiclass", ("accuracy", 0.8), TREES, "cannot tell",
        classes=("class_0", "class_2"), says=("30", "Nothing was scored: no version serves yet."),
    ),
    Case(
        "läden", _shops, "gekündigt", "binary", ("roc_auc", 0.85),
        ("--split.key-columns", "Kunde", "--slices", "Straße,Größe", *BALANCED, *TREES),
        quarantined=7, classes=("ja", "nein"), says=("cp1252", "Saarbrücken"),
    ),
    Case(
        "flats", _flats, "price", "regression", ("r2", 0.8),
        ("--features.scale", "robust", "--features.interactions", "area", "lift", *TREES), says=("owner",),
    ),
    Case(
        "sensors", _sensors, "alarm", "binary", ("roc_auc", 0.9), ("--split.time", "at", *TREES),
        classes=("true", "false"),
    ),
    Case(
        "visits", _visits, "ward", "multiclass", ("accuracy", 0.7),
        ("--split.group", "patient", "--features.columns.doctor.treat", "target", *TREES),
        classes=("heart", "eye", "skin", "bone"), says=("'patient' deals the rows, left out",),
    ),
    Case(
        "signs", _signs, "sign", "multiclass", ("accuracy", 0.9),
        ("--keras.epochs", "4", "--keras.hidden", "64"), classes=("000", "019"),
        says=("and 90 more classes",), families=("keras",),
    ),
    Case(
        "reviews", _reviews, "returned", "binary", ("roc_auc", 0.9), TREES, classes=("yes", "no"),
        says=("currency", "notes", "'refund code'", "id", "--split.key-columns id keeps each row"),
    ),
    Case(
        "bikes", _bikes, "rmse", "regression", ("r2", 0.7), ("--split.key-columns", "key", *TREES),
        scored=2,
    ),
]  # fmt: skip
