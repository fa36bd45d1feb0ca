"""Proof that all ranks hold the same model, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.errors import DesyncError
from ml_platform.worker.collective import Collective, gather_json

_SHOWN = 5


@dataclass(frozen=True)
class Proof:
    """All `ranks` hold the bytes with this digest in `variables` variables."""

    digest: str
    ranks: int
    variables: int


def prove(model: Any, collective: Collective) -> Proof:
    """Compare all weights and optimizer variables over all ranks.

    `model.variables` is not what is compared: it holds the seeds of dropout, which differ on purpose.

    Raises:
        DesyncError: Ranks differ. It names the first variables that do, and the ranks.
    """
    return prove_alike(variables_of(model), collective)


def prove_alike(variables: Sequence[Any], collective: Collective) -> Proof:
    """Compare these variables over all ranks.

    Raises:
        DesyncError: Ranks differ.
    """
    own = digests(variables)
    everyone: list[list[list[str]]] = gather_json(collective, own)
    # Names do not count: a rank that built another model before has other ones.
    if any([entry[1] for entry in other] != [entry[1] for entry in everyone[0]] for other in everyone):
        raise _desync(everyone)
    whole = hashlib.sha256("".join(digest for _, digest in own).encode()).hexdigest()
    return Proof(digest=whole, ranks=collective.size, variables=len(own))


def variables_of(model: Any) -> list[Any]:
    """What ranks must hold alike: the weights, and the optimizer's variables."""
    return [*model.weights, *model.optimizer.variables]


def digests(variables: Sequence[Any]) -> list[list[str]]:
    """[path, sha256 of type, shape and bytes] of each variable, in order."""
    return [[variable.path, _digest(variable.numpy())] for variable in variables]


def _digest(value: Any) -> str:
    head = f"{value.dtype}{value.shape}".encode()
    return hashlib.sha256(head + value.tobytes()).hexdigest()


def _desync(everyone: list[list[list[str]]]) -> DesyncError:
    lines, ranks = [], set()
    for number, (name, digest) in enumerate(everyone[0]):
        others = [rank for rank, of in enumerate(everyone) if number >= len(of) or of[number][1] != digest]
        if others:
            ranks.update(others)
            lines.append(f"{name}: ranks {', '.join(map(str, others))} differ from rank 0")
    longer = [rank for rank, of in enumerate(everyone) if len(of) > len(everyone[0])]
    return DesyncError(
        "ranks hold different models after training",
        wanted=f"equal bytes in {len(everyone[0])} variables on {len(everyone)} ranks",
        got=f"{len(lines)} variables differ, on ranks {', '.join(map(str, sorted(ranks | set(longer))))}",
        evidence="\n".join(lines[:_SHOWN]),
        hint="train with rank.fit, and do not change weights on one rank alone",
    )
