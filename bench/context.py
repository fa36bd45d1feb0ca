"""What a bench is given, and what it makes of the blocks that it measured."""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.machine import FOREIGN_LIMIT
from bench.pairing import Block, Interval, Pairs, clean, interval, ratio
from bench.prefect_server import Server, prefect_server
from bench.report import Row, row
from bench.sides import Driver, WrongAnswerError, measured

Size = Literal["smoke", "full"]
SERVED = frozenset({"ours", "ours_cached", "ours_flow", "ours_tuning", "prefect"})


@dataclass
class Context:
    """One run of benches: its size, its folder, and the one server for all sides."""

    size: Size
    folder: Path
    closing: ExitStack
    _server: list[Server] = field(default_factory=list)
    _homes: int = 0

    def pick(self, smoke: Any, full: Any) -> Any:
        return smoke if self.size == "smoke" else full

    @property
    def server(self) -> Server:
        """Started when the first bench needs it."""
        if not self._server:
            self._server.append(self.closing.enter_context(prefect_server()))
        return self._server[0]

    def driver(self, peer: str, folder: Path | None = None) -> Driver:
        """A driver in a process of its own, with the server's address where it needs one."""
        return Driver(peer, self.server.url if peer in SERVED else None, folder)

    def home(self) -> str:
        """A platform folder that nothing was stored in yet."""
        self._homes += 1
        return str(self.folder / f"home-{self._homes}")

    def block(
        self,
        driver: Driver,
        expected: Mapping[str, Any],
        most: Mapping[str, float] | None = None,
        into: dict[str, Any] | None = None,
        **question: Any,
    ) -> Block:
        """One repetition: drain, ask, and look at the answer.

        Args:
            expected: Parts of the answer as they must be.
            most: Numbers in the answer that may not be larger.
            into: Takes all that was answered.
        Raises:
            WrongAnswerError: The answer is another one: a fast wrong answer is a failure.
        """
        if driver.peer in SERVED:
            self.server.drain()
        found: dict[str, Any] = {} if into is None else into

        def ask() -> float:
            found.update(driver.ask(**question))
            return float(found["seconds"])

        block = measured(ask)
        block = replace(block, called=found.get("called", block.seconds))
        if found.get("flow_run"):
            self.server.sent(found["flow_run"], found["sent"])
        got = {name: found[name] for name in expected}
        if got != expected:
            raise WrongAnswerError(f"{driver.peer}, {question}: wanted {expected}, got {got}")
        above = {name: found[name] for name, limit in (most or {}).items() if found[name] > limit}
        if above:
            raise WrongAnswerError(f"{driver.peer}, {question}: wanted at most {most}, got {above}")
        return block


@contextmanager
def opened(size: Size) -> Iterator[Context]:
    with ExitStack() as closing:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        yield Context(size, Path(folder), closing)


def compared(
    context: Context,
    bench: str,
    case: str,
    peer: str,
    blocks: tuple[Sequence[Block], Sequence[Block]],
    per: int = 1,
    of: Callable[[Sequence[tuple[Block, Block]]], Interval] = ratio,
    **more: Any,
) -> Row:
    """A row from the blocks of both sides, round by round.

    Args:
        per: Nodes in a block: times are shown per node.
        of: What is made of the pairs.
    """
    pairs = clean(list(zip(*blocks, strict=True)), limit=FOREIGN_LIMIT)
    shown = {
        side: f"{1e3 * interval([pair[at].seconds for pair in pairs.kept]).value / per:.3g} ms"
        for at, side in enumerate(("ours", "theirs"))
    }
    return row(bench, case, peer, context.size, of(pairs.kept), **counts(pairs), **{**shown, **more})


def counts(pairs: Pairs) -> dict[str, Any]:
    """How many pairs stand behind a row, and when."""
    return {
        "pairs": len(pairs.kept),
        "discarded": pairs.discarded,
        "disturbed": pairs.disturbed,
        "date": today(),
    }


def today() -> str:
    """The date of a row."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)
