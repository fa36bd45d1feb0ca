"""The one decision: must this node run, and why? Plan and run ask it with what each of them knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, ValidationError

from ml_platform.engine.code import Code, explain
from ml_platform.engine.graph import Either, Node, Reference, fill, references_in, resource_name
from ml_platform.engine.keys import Own, inputs_key, own_key, task_code
from ml_platform.engine.outputs import Output, Values
from ml_platform.errors import PlatformError, StoreError
from ml_platform.specs.base import Spec
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.history import NodeHistory
from ml_platform.store.results import Absent, Result, Results
from ml_platform.store.stamps import stamp

Verdict = Literal["cached", "run", "maybe", "blocked", "skipped"]
SHOWN_CHANGES = 3
SHOWN_DIGITS = 12


class Decision(Spec):
    """What becomes of one node, and why."""

    name: str
    verdict: Verdict
    reason: str
    task: str
    expected_seconds: float | None = Field(None, description="Median of its last runs.")
    resources: tuple[str, ...] = ()
    own: str = Field("", description="Digest of what the node is.")
    inputs: str = Field("", description="Digest of what it is given; empty while that is not known.")
    parts: dict[str, str] = Field({}, exclude=True)
    input_parts: dict[str, str] = Field({}, exclude=True)
    uncacheable: str = ""
    notes: tuple[str, ...] = Field((), description="What its key does not see, or covers in the large.")
    result: Result | None = Field(None, exclude=True, repr=False)


class World:
    """Read-only views of what a decision depends on besides the graph.

    Args:
        results: Stored results.
        history: What each node was made of when it last ran.
        resolve: Fills in the empty fields of recipes, by the placement.
        forced: Nodes that run whatever is stored, with the reason.
        accepted: Results to use for nodes that would run otherwise.
    """

    def __init__(
        self,
        *,
        results: Results,
        history: Mapping[str, NodeHistory],
        resolve: Callable[[Mapping[str, ResourceSpec]], dict[str, ResourceSpec]],
        forced: Mapping[str, str] | None = None,
        accepted: Mapping[str, Result] | None = None,
    ) -> None:
        self.results = results
        self.history = history
        self.resolve = resolve
        self.forced = forced or {}
        self.accepted = accepted or {}
        self._stamps: dict[str, str | None] = {}
        self._codes: dict[str, str] = {}
        self._kept: dict[str, Code | None] = {}

    def stamp(self, uri: str) -> str | None:
        """Evidence of what lies at a URI; asked once per world."""
        if uri not in self._stamps:
            self._stamps[uri] = stamp(uri)
        return self._stamps[uri]

    def keep_code(self, code: Code) -> str:
        """Store what a task reaches, for later explanations. Returns the digest that finds it.

        Empty when the store takes nothing: later plans say less then.
        """
        if code.digest not in self._codes:
            try:
                self._codes[code.digest] = self.results.put_code(code.model_dump(mode="json"))
            except StoreError:
                return ""
        return self._codes[code.digest]

    def kept_code(self, digest: str) -> Code | None:
        """What a task reached when it last ran; None when that is not kept any more, or was kept by another
        version of the platform: it only explains."""
        if digest not in self._kept:
            content = self.results.get_code(digest) if digest else None
            try:
                self._kept[digest] = Code.model_validate(content) if content else None
            except ValidationError:
                self._kept[digest] = None
        return self._kept[digest]

    def fresh(self) -> World:
        """The same views, with nothing remembered of what lies where."""
        return World(
            results=self.results,
            history=self.history,
            resolve=self.resolve,
            forced=self.forced,
            accepted=self.accepted,
        )


def decide(node: Node, outputs: Mapping[str, Output], world: World) -> Decision:
    """Whether a node must run.

    Args:
        outputs: What is known of its parents: all of them in a run, some in a plan.
    Raises:
        PlatformError: Its probe, or the store, failed.
    """
    return _Question(node, outputs, world).answer()


def is_new(node: Node, world: World) -> bool:
    """Whether a node runs whatever it will be given, unless something before it fails.

    Nothing is stored then under what it is itself. Asks nobody but the store.

    Raises:
        PlatformError: The store failed.
    """
    if node.conditions or node.over is not None or node.task.probe is not None or not node.task.cache:
        return False
    if node.name in world.accepted:
        return False
    own = _Question(node, {}, world).own
    return own is not None and not own.uncacheable and not world.results.any(own.digest)


class _Question:
    """One node in one world. Every answer has the same facts."""

    def __init__(self, node: Node, outputs: Mapping[str, Output], world: World) -> None:
        self.node = node
        self.outputs = outputs
        self.world = world
        self.history = world.history.get(node.name)
        self.unknown = [parent for parent in node.parents if parent not in outputs]

    def answer(self) -> Decision:
        decision, old = self._answer(), self.world.accepted.get(self.node.name)
        if old is None or decision.verdict not in ("run", "maybe"):
            return decision
        return self._say("cached", f"accepted from {old.run}, although {decision.reason}", old)

    def _answer(self) -> Decision:
        open_conditions = []
        for condition in self.node.conditions:
            if condition.reference.node not in self.outputs:
                open_conditions.append(str(condition))
            elif not condition.holds(Values(self.outputs)):
                return self._say("skipped", f"not taken: only if {condition}")
        decision = self._once_its_branch_is_taken()
        if decision.verdict == "run" and open_conditions:
            reason = f"{decision.reason}; only if {' and '.join(open_conditions)}"
            return decision.model_copy(update={"verdict": "maybe", "reason": reason})
        return decision

    def _once_its_branch_is_taken(self) -> Decision:
        if self.node.declared in self.world.forced:
            return self._say("run", self.world.forced[self.node.declared])
        if not self.node.task.cache:
            return self._say("run", "it is declared with cache=False")
        if self.own is None:
            return self._say("maybe", f"its probe waits for {', '.join(self.unknown)}")
        if self.own.uncacheable:
            return self._say("run", f"uncacheable: {self.own.uncacheable[0]}")
        if self.unknown:
            return self._while_inputs_are_unknown(self.own)
        if "" in self.input_parts.values():
            return self._say("run", "uncacheable: an input has no identity")
        found = self.world.results.find(self.own.digest, self.inputs)
        if isinstance(found, Absent):
            return self._say("run", self._change() or found.reason)
        moved = self._moved(found)
        return self._say("run", moved) if moved else self._say("cached", f"from {found.run}", found)

    def _while_inputs_are_unknown(self, own: Own) -> Decision:
        if not self.world.results.any(own.digest):
            return self._say("run", self._change() or "result missing")
        return self._say("maybe", f"waits for {', '.join(self.unknown)}")

    def _moved(self, found: Result) -> str | None:
        """Why a stored result no longer counts."""
        for uri, before in found.stamps.items():
            now = self.world.stamp(uri)
            if now != before:
                return f"result missing: {uri} {'is gone' if now is None else 'was changed'}"
        verify = self.node.task.verify
        if verify is None:
            return None
        output = Output(result=found, type_=self.node.task.output_type)
        arguments = {**fill(dict(self.node.arguments), Values(self.outputs)), "output": output.value}
        wanted = inspect.signature(verify).parameters
        asked = {name: arguments[name] for name in wanted}
        moved: str | None = _answer_of("verify", self.node, verify, asked)
        return moved

    @cached_property
    def own(self) -> Own | None:
        """The own key; None while the probe lacks an argument."""
        task, node = self.node.task, self.node
        probe = None
        if task.probe is not None:
            asked = known_arguments(task.probe, node, self.outputs)
            if asked is None:
                return None
            probe = _answer_of("probe", node, task.probe, asked)
        return own_key(node, self.world.resolve(node.resources), probe, task_code(task.function))

    @cached_property
    def _inputs(self) -> tuple[str, dict[str, str]]:
        return inputs_key(self.node, self._identity)

    @property
    def inputs(self) -> str:
        return self._inputs[0]

    @property
    def input_parts(self) -> dict[str, str]:
        return self._inputs[1]

    def _identity(self, given: Reference | Either, whole: bool) -> str:
        options = given.options if isinstance(given, Either) else (given,)
        taken = (option for option in options if not self.outputs[option.node].skipped)
        chosen = next(taken, options[0])
        return self.outputs[chosen.node].identity(chosen.path, whole=whole) or ""

    def _change(self) -> str | None:
        """What differs from the last time, in words; None when nothing does."""
        if self.history is None:
            return "never ran"
        code = self._code_changes()
        found = [*code, *_without_code(changes(self.history.own, self.own.parts if self.own else {}), code)]
        if not self.unknown:
            found += changes(self.history.inputs, self.input_parts)
        more = f", and {len(found) - SHOWN_CHANGES} more" if len(found) > SHOWN_CHANGES else ""
        return "; ".join(found[:SHOWN_CHANGES]) + more if found else None

    def _code_changes(self) -> list[str]:
        now = task_code(self.node.task.function)
        before = self.world.kept_code(self.history.code) if self.history else None
        return [explain(before, now)] if before is not None and before.digest != now.digest else []

    def _say(self, verdict: Verdict, reason: str, result: Result | None = None) -> Decision:
        own = self.own if verdict != "skipped" else None
        known = own is not None and not self.unknown
        return Decision(
            name=self.node.name,
            verdict=verdict,
            reason=reason,
            task=self.node.function,
            expected_seconds=self.history.expected_seconds if self.history else None,
            resources=tuple(resource_name(spec) for spec in self.node.resources.values()),
            own=own.digest if own else "",
            inputs=self.inputs if known else "",
            parts=own.parts if own else {},
            input_parts=self.input_parts if known else {},
            uncacheable=own.uncacheable[0] if own and own.uncacheable else "",
            notes=own.notes if own else (),
            result=result,
        )


def _answer_of(what: str, node: Node, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a function of the user's says about a node; any error of it is one that a plan can show."""
    try:
        return function(**arguments)
    except PlatformError:
        raise
    except Exception as error:
        raise PlatformError(
            f"the {what} of {node.name} failed", got=f"{type(error).__name__}: {error}"
        ) from error


def own_digest(node: Node, outputs: Mapping[str, Output], world: World) -> str:
    """The own key of a node now. After it ran: the same as before only if what it reads has not moved."""
    own = _Question(node, outputs, world).own
    return own.digest if own else ""


def ruled(node: Node, verdict: Verdict, reason: str) -> Decision:
    """A decision on a node whose keys do not matter: it cannot run, or has nothing to do."""
    resources = tuple(resource_name(spec) for spec in node.resources.values())
    return Decision(name=node.name, verdict=verdict, reason=reason, task=node.function, resources=resources)


def known_arguments(
    function: Callable[..., Any], node: Node, outputs: Mapping[str, Output]
) -> dict[str, Any] | None:
    """Those arguments of the node that `function` names. None while it needs one that is not known yet."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        value = node.arguments.get(name, parameter.default)
        if any(reference.node not in outputs for reference in references_in(value)):
            if parameter.default is inspect.Parameter.empty:
                return None
            value = parameter.default
        if value is inspect.Parameter.empty:
            return None
        found[name] = fill(value, Values(outputs))
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Readable differences of two sets of parts."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name.startswith("input "):
            moved = f"moved from {_short(old)} to {_short(new)}" if old else f"is new: {_short(new)}"
            found.append(f"{name} {moved}")
        else:
            found.append(f"{name}: {_short(old, 60)} → {_short(new, 60)}")
    return found


def _without_code(found: list[str], said: list[str]) -> list[str]:
    """Changes without those of the code of an argument's class, where changed code is named already."""
    return [change for change in found if not said or " code: " not in change]


def _short(text: str | None, characters: int = SHOWN_DIGITS) -> str:
    if text in (None, "null"):
        return "nothing"
    return text if len(text) <= characters else text[:characters] + ("…" if characters > SHOWN_DIGITS else "")
