"""References: small frozen values that stand for big data. What tasks hand to each other."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from ml_platform.specs.base import Location, NotIdentity, Spec
from ml_platform.specs.contracts import Contract
from ml_platform.specs.problems import ProblemKind, kind_of
from ml_platform.specs.profiles import Finding, Profile

Family = Literal["keras", "xgboost", "sklearn", "mllib"]
"""What learns from features."""
ModelFamily = Literal["keras", "xgboost", "sklearn", "mllib", "fine_tuned"]
"""fine_tuned: a Keras network that learns from the images themselves."""
Flavour = Literal["raw", "keras", "saved_model", "xgboost", "sklearn", "pyfunc"]


class Dataset(Spec):
    """An immutable table in the store. Open it with `ml_platform.store.open_dataset`."""

    uri: Location = Field(description="Folder of the data set; its manifest lies beside the files.")
    contract: Contract
    rows: int = Field(ge=0)
    bytes: Annotated[int, NotIdentity()] = Field(ge=0, description="Size of the data files.")
    fingerprint: str = Field(description="Digest of the content; independent of row order and files.")


class Table(Spec):
    """A table that was loaded: the rows that keep the contract, and those that do not."""

    data: Dataset
    quarantined: int = Field(0, ge=0, description="Rows set aside, with a reason beside each.")
    quarantine: Dataset | None = None
    source: Annotated[str, NotIdentity()] = Field(description="What was read, as the user named it.")
    profile: Annotated[Profile | None, NotIdentity()] = Field(
        None,
        description="What was counted on the way. Follows from the data, but for the rows of its sample.",
    )
    findings: Annotated[tuple[Finding, ...], NotIdentity()] = Field(
        (), description="Columns that are of no use, or know too much."
    )
    notes: Annotated[tuple[str, ...], NotIdentity()] = Field((), description="How the source was read.")


class SplitProof(Spec):
    """That no key lies in two parts, by 128-bit hashes of the columns that decided each row's part."""

    columns: tuple[str, ...]
    distinct: int = Field(ge=0, description="Different keys in all parts.")
    shared: int = Field(ge=0, description="Keys in more than one part.")
    cuts: tuple[dt.datetime, dt.datetime] | None = Field(
        None, description="Where validation and holdout begin, of a split by time."
    )

    def __str__(self) -> str:
        by = self.columns[0] if len(self.columns) == 1 else f"{len(self.columns)} columns"
        cuts = f"; cut at {self.cuts[0].isoformat()} and {self.cuts[1].isoformat()}" if self.cuts else ""
        keys = "key" if self.distinct == 1 else "keys"
        return f"{self.distinct:,} {keys} by {by}, {self.shared:,} of them in more than one part{cuts}"


class Parts(Spec):
    """A table cut into three disjoint parts."""

    train: Dataset
    validation: Dataset
    holdout: Dataset
    proof: Annotated[SplitProof | None, NotIdentity()] = None

    def __str__(self) -> str:
        sizes = (
            f"{self.train.rows:,} train, {self.validation.rows:,} validation, {self.holdout.rows:,} holdout"
        )
        return f"{sizes} rows" + (f"; {self.proof}" if self.proof else "")


def shown(*values: float, sign: str = "") -> tuple[str, ...]:
    """Numbers that belong together, with as many decimals as their size asks for.

    >>> shown(0.25, 1), shown(12.3456, -9), shown(0.5, 12345.6, sign="+")
    (('0.2500', '1.0000'), ('12.35', '-9.00'), ('+0', '+12,346'))
    >>> shown(2.5e-5, -1e-6), shown(0, 0)
    (('2.5e-05', '-1e-06'), ('0.0000', '0.0000'))
    """
    largest = max(map(abs, values))
    if not (largest == 0 or 1e-3 <= largest < 1e12):
        return tuple(f"{value:{sign}.4g}" for value in values)
    decimals = 4 if largest < 10 else 2 if largest < 1_000 else 0
    return tuple(f"{value:{sign},.{decimals}f}" for value in values)


class Metric(Spec):
    """A measured value with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = shown(self.value, self.low, self.high)
        return f"{value} [{low}, {high}]"


class Calibration(Spec):
    """How far probabilities are from what happened (`ml_platform.evaluation.calibration` says how)."""

    error: float = Field(ge=0, description="Expected calibration error: mean distance over ten bins.")
    limit: float = Field(ge=0, description="What 95 of 100 tables of a calibrated model stay below.")
    rows: int

    def __str__(self) -> str:
        said = "calibrated" if self.error <= self.limit else "not calibrated"
        compared = "within" if self.error <= self.limit else "above"
        return (
            f"{said}: the expected calibration error is {self.error:.4f}, {compared} the {self.limit:.4f} "
            f"that chance gives a calibrated model ({self.rows:,} rows)"
        )


class Slice(Spec):
    """Rows of an evaluation that have a value in common."""

    column: str
    value: str
    is_range: bool = Field(False, description="`value` is a range of numbers: ≤ 25, 25 to 50, > 75.")
    rows: int
    metrics: dict[str, Metric] = Field({}, description="Empty: too few rows to tell.")

    def __str__(self) -> str:
        return f"{self.column} {self.value}" if self.is_range else f"{self.column} = {self.value}"


class Model(Spec):
    """A model that MLflow has logged. It takes raw rows: features and classes travel inside it."""

    uri: Location = Field(description="models:/<model id>; opens with mlflow.pyfunc.load_model.")
    family: ModelFamily
    run_id: str = Field(description="The MLflow run that logged it.")
    digest: str = Field(description="sha256 over the model's files.")
    contract: Contract = Field(description="Raw input that it takes.")
    classes: tuple[str, ...] = Field(description="Empty: it predicts a number.")
    ranks: int = Field(1, ge=1, description="Ranks that trained it together.")

    @property
    def problem(self) -> ProblemKind:
        """What it predicts."""
        return kind_of(self.classes)


class Version(Spec):
    """A registered version of a model."""

    name: str
    version: int
    model: Model

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


class ModelFiles(Spec):
    """Any model that can be scored with, pinned: its files, wherever they came from."""

    uri: str = Field(description="What it is: models:/<name>/<version>, or where its file lay.")
    flavour: Flavour = Field(description="raw: logged by this platform.")
    path: Location = Field(description="Its file or folder on this machine.")
    entry: str = Field("", description="What is opened, below a folder.")
    digest: str = Field(description="sha256 over the files.")
    name: str
    version: int | None = Field(None, description="None: it is in no registry.")


class Evaluation(Spec):
    """A model measured on one part. `rows_uri` holds one line per row, for paired comparison."""

    model: Model
    part: Literal["validation", "holdout"]
    data_fingerprint: str = Field(description="Fingerprint of the rows that were scored.")
    rows: int
    groups: int | None = Field(None, description="Groups that intervals stand on, where rows have groups.")
    metrics: dict[str, Metric]
    calibration: Calibration | None = None
    slices: tuple[Slice, ...] = ()
    rows_uri: Location = Field(description="Parquet file: row key, label, prediction, losses.")


class Verdict(Spec):
    """What the gate decided, and on which evidence."""

    decision: Literal["promote", "hold", "cannot tell", "reject", "not comparable"]
    reason: str
    metric: str
    against: str = Field(description="The champion's uri, or 'trivial predictor'.")
    gain: Metric | None = Field(None, description="By how much the challenger is better, paired.")
    rows: int = Field(0, description="Rows of the holdout that were compared.")
    holdout_uses: int = Field(1, description="Challengers that this holdout has judged, this one included.")
    holdout_note: str = Field("", description="What that means, for people.")
    evidence: str = Field("", description="Lines that show why: columns that differ.")


class Predictions(Spec):
    """A scored table."""

    uri: Location
    rows: int
    failed_rows: int = Field(0, description="Rows with an error instead of a prediction.")
    reused_rows: Annotated[int, NotIdentity()] = Field(
        0, description="Rows that had been scored before, by the same model and code, and were taken over."
    )
    model_uri: str
    model_version: int | None = Field(description="None: the model is in no registry.")
