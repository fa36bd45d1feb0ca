"""Every error that ml-platform raises on purpose.

```
PlatformError                what failed and where, wanted against got, evidence, next step
├── UsageError            2  the request is wrong: an option, a spec, a graph
│   ├── SpecError            a value is out of its range or names something that does not exist
│   └── GraphError           the declared graph cannot run: edges, promises, resources
├── DataError             3  the data cannot serve: missing, empty, corrupt, one class, too few rows
│   └── DivergedError        a loss is no number; every rank knows it, and none is lost
├── PromotionError        4  a race to promote was lost, or a required promotion was held
└── InfrastructureError   5  a server, a session, a rank or a disk failed
    ├── TaskTimeoutError     a task took longer than its `timeout_seconds`
    ├── ResourceStartError   a resource did not start, or could never start here
    ├── RankError            a rank raised, died or fell silent
    │   └── RankLostError       it died or fell silent: another gang may do better
    ├── DesyncError          ranks that must hold equal bytes do not
    ├── StoreError           the store refused a read or a write
    └── TrackingError        the MLflow server or database did not do what it was asked
```

The number is the exit code of a command that ends with the error. 130 is kept for an interrupt.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class PlatformError(Exception):
    """Base of the tree. `str(error)` is what a person reads.

    Args:
        what: What failed and where, in one line.
        wanted: What was needed.
        got: What was there instead.
        evidence: Lines that show it: a log tail, a remote traceback, offending rows.
        hint: What to do next.
    """

    exit_code: ClassVar[int] = 5

    def __init__(
        self,
        what: str,
        *,
        wanted: object = None,
        got: object = None,
        evidence: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.wanted = None if wanted is None else str(wanted)
        self.got = None if got is None else str(got)
        self.evidence = evidence
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.wanted is not None:
            lines.append(f"  wanted: {self.wanted}")
        if self.got is not None:
            lines.append(f"  got: {self.got}")
        if self.evidence:
            lines.extend(f"  | {line}" for line in self.evidence.rstrip().splitlines())
        if self.hint is not None:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.wanted, self.got, self.evidence, self.hint)


def _rebuild(
    kind: type[PlatformError],
    what: str,
    wanted: str | None,
    got: str | None,
    evidence: str | None,
    hint: str | None,
) -> PlatformError:
    return kind(what, wanted=wanted, got=got, evidence=evidence, hint=hint)


class UsageError(PlatformError):
    exit_code = 2


class SpecError(UsageError):
    pass


class GraphError(UsageError):
    pass


class DataError(PlatformError):
    exit_code = 3


class DivergedError(DataError):
    pass


class PromotionError(PlatformError):
    exit_code = 4


class InfrastructureError(PlatformError):
    exit_code = 5


class TaskTimeoutError(InfrastructureError):
    pass


class ResourceStartError(InfrastructureError):
    pass


class RankError(InfrastructureError):
    pass


class RankLostError(RankError):
    pass


class DesyncError(InfrastructureError):
    pass


class StoreError(InfrastructureError):
    pass


class TrackingError(InfrastructureError):
    pass


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest known name, or lists what is known.

    >>> nearest("lable", ["label", "age"])
    "did you mean 'label'?"
    >>> nearest("vgg16", ["ResNet50", "VGG16"])
    "did you mean 'VGG16'?"
    >>> nearest("zzz", ["label", "age"])
    'known: age, label'
    """
    names = sorted(set(known))
    written = {name.lower(): name for name in names}
    close = difflib.get_close_matches(name.lower(), written, n=1)
    if close:
        return f"did you mean {written[close[0]]!r}?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"known: {shown or 'none'}"


def one_line(error: Exception, *, most: int = 500) -> str:
    """An error as the text of a table's row: what failed, and what was there instead."""
    text = error.what if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"
    if isinstance(error, PlatformError) and error.got:
        text += f" ({error.got})"
    return " ".join(text.split())[:most]
