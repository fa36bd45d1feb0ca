"""Do the installed versions fit each other? Reads metadata; imports none of the packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata

from packaging.specifiers import SpecifierSet

from ml_platform.cli.checks import Check, Status
from ml_platform.specs.base import Spec


class Pin(Spec):
    """Versions of a package that are known to work, and what happens with others."""

    package: str
    wanted: str
    reason: str
    breaks: bool = False
    instead: str | None = None


PINS = (
    Pin(package="prefect", wanted="==3.8.8", breaks=True,
        reason="the engine is tested against this one alone; 3.9 asks for a certifi that does not resolve"),
    Pin(package="fastapi", wanted="==0.150.0", breaks=True,
        reason="0.165 breaks Prefect 3.8.8 at start: Body() got an unexpected keyword argument 'min_items'"),
    Pin(package="sqlalchemy", wanted="<2.1", breaks=True,
        reason="with 2.1 no schedule of Prefect 3.8.8 fires: its scheduler fails to insert runs"),
    Pin(package="pydantic", wanted="==2.14.3",
        reason="forms and options are read off pydantic's schemas, which differ between versions"),
    Pin(package="pyspark", wanted="==4.2.0", reason="Delta Lake and MLflow support Spark up to 4.2"),
    Pin(package="pyarrow", wanted="<26", reason="Spark 4.2 and the packed columns are tested up to 25"),
    Pin(package="pandas", wanted="<3", reason="PySpark 4.2 warns about pandas 3"),
    Pin(package="numpy", wanted="<2.5", reason="TensorFlow 2.21 and MLflow are tested up to NumPy 2.4"),
    Pin(package="tensorflow-cpu", instead="tensorflow", wanted="==2.21.0",
        reason="Horovod is compiled against exactly this TensorFlow"),
    Pin(package="keras", wanted="==3.15.1",
        reason="ranks replace the optimizer's `apply`; another Keras may train without reducing gradients"),
    Pin(package="xgboost-cpu", instead="xgboost", wanted="==3.2.0",
        reason="the version whose Spark estimator is tested"),
    Pin(package="scikit-learn", wanted="==1.9.*", reason="holds the digits table, the default source"),
    Pin(package="mlflow", wanted="==3.17.2", breaks=True, reason="3.18.0 lacks its mlflow-skinny"),
)  # fmt: skip
"""As in requirements/runtime.in; a test keeps the two equal."""


def check_python() -> Sequence[Check]:
    """3.11 to 3.13: TensorFlow 2.21 has wheels for these."""
    fits = (3, 11) <= sys.version_info < (3, 14)
    return [
        Check(
            name="Python",
            status="ok" if fits else "block",
            found=platform.python_version(),
            wanted="3.11 to 3.13",
            reason="" if fits else "TensorFlow 2.21 has no wheel for it",
            next_step="" if fits else "make setup PYTHON=/path/to/python3.11",
        )
    ]


def check_versions() -> Sequence[Check]:
    """One check per pin."""
    return [check_pin(pin, _installed(pin.package) or _installed(pin.instead)) for pin in PINS]


def check_pin(pin: Pin, installed: str | None) -> Check:
    """Judge one package. A missing one blocks; another version blocks where it is known to break."""
    if installed is None:
        status: Status = "block"
    elif SpecifierSet(pin.wanted).contains(installed, prereleases=True):
        return Check(name=pin.package, status="ok", found=installed, wanted=pin.wanted)
    else:
        status = "block" if pin.breaks else "warn"
    return Check(
        name=pin.package,
        status=status,
        found=installed or "not installed",
        wanted=pin.wanted,
        reason=pin.reason,
        next_step="make setup" if installed is None else "rm .venv/set-up/packages, then make setup",
    )


def _installed(package: str | None) -> str | None:
    """Its version. `instead` names the build for GPUs, which goes by another name."""
    if package is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
