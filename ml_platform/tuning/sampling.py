"""Asks Optuna for the next point.

Every question makes a study in memory from what earlier trials found, so that nothing has to be kept beside
the results of the trials. It is seeded by the study and the trial's number: equal histories, equal points.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ml_platform.resources.process_wide import heard, while_anyone
from ml_platform.specs.base import Spec
from ml_platform.specs.tuning import Asked, Choice, Dimension, Space, StudySpec, Trial
from ml_platform.tuning.board import searched_seconds
from ml_platform.tuning.spaces import fits, is_whole

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    Distribution = CategoricalDistribution | IntDistribution | FloatDistribution

DRAWS = 50
"""Points that are asked for until one is valid and new."""
STARTUP_TRIALS = 5
"""Points drawn at random before a sampler believes what trials found."""


def ask(
    study: StudySpec, space: Space, base: Spec, number: int, told: Sequence[Trial], under_way: Sequence[Asked]
) -> Asked:
    """The point that trial `number` shall try.

    Args:
        number: From 1.
        told: What earlier trials found.
        under_way: Points that are being tried, or wait for that.
    """
    if study.seconds is not None and searched_seconds(told) >= study.seconds:
        return _no_more(number, f"the search has had its {study.seconds:g} s")
    distributions = {name: distribution(each, base, name) for name, each in space.dimensions.items()}
    known = [trial.parameters for trial in told] + [each.parameters for each in under_way if each.parameters]
    for parameters in _draws(study, space, distributions, number, told, under_way):
        if parameters not in known and fits(base, parameters):
            return Asked(number=number, parameters=parameters)
    return _no_more(number, "every point that was drawn had been tried, or is not valid")


def distribution(dimension: Dimension, base: Spec, name: str) -> Distribution:
    """A dimension as Optuna knows it. Choices go by their JSON: Optuna takes no lists."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution([json.dumps(value) for value in dimension.values])
    if is_whole(base, name):
        step = int(dimension.step or 1)
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def as_optuna(trial: Trial, distributions: Mapping[str, Distribution]) -> optuna.trial.FrozenTrial:
    """A trial as Optuna remembers it."""
    from optuna.trial import TrialState

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    value = trial.value if trial.state == "complete" else None
    # Samplers look at those of pruned trials alone, and Optuna copies each deeply.
    curve = dict(enumerate(trial.curve)) if trial.state == "pruned" else {}
    return _frozen(states.get(trial.state, TrialState.FAIL), trial.parameters, distributions, value, curve)


def _running(asked: Asked, distributions: Mapping[str, Distribution]) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState

    return _frozen(TrialState.RUNNING, asked.parameters or {}, distributions)


def _frozen(
    state: optuna.trial.TrialState,
    parameters: Mapping[str, JsonValue],
    distributions: Mapping[str, Distribution],
    value: float | None = None,
    curve: dict[int, float] | None = None,
) -> optuna.trial.FrozenTrial:
    """As `optuna.create_trial`, which looks at everything that a study then looks at again."""
    from optuna.trial import FrozenTrial

    now = datetime.now()  # noqa: DTZ005  (as Optuna's own)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=value,
        datetime_start=now,
        datetime_complete=now if state.is_finished() else None,
        params=_internal(parameters, distributions),
        distributions={name: distributions[name] for name in parameters},
        user_attrs={},
        system_attrs={},
        intermediate_values=curve or {},
    )


def _draws(
    study: StudySpec,
    space: Space,
    distributions: Mapping[str, Distribution],
    number: int,
    told: Sequence[Trial],
    under_way: Sequence[Asked],
) -> Iterator[dict[str, JsonValue]]:
    """Points as the sampler gives them; those that were of no use are under way for it."""
    import optuna

    with quiet():
        memory = optuna.create_study(sampler=_sampler(study, number))
        known = [as_optuna(each, distributions) for each in told if each.state != "not run"]
        known += [_running(each, distributions) for each in under_way if each.parameters]
        memory.add_trials([_uncopied(trial) for trial in known])
        for _ in range(DRAWS):
            yield _suggested(memory.ask(), space, distributions)


def _uncopied(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """A study copies deeply what it is given: of all trials at each question, most of its time."""
    trial.__deepcopy__ = lambda memo: trial  # type: ignore[attr-defined]
    return trial


def _sampler(study: StudySpec, number: int) -> optuna.samplers.BaseSampler:
    import numpy as np
    import optuna

    seed = int(np.random.SeedSequence([study.seed, number]).generate_state(1)[0])
    if study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if study.sampler == "grid":
        return optuna.samplers.BruteForceSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
    )


def _suggested(
    trial: optuna.Trial, space: Space, distributions: Mapping[str, Distribution]
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, dimension in space.dimensions.items():
        if all(name in found and found[name] in values for name, values in dimension.when.items()):
            found[name] = _suggest(trial, name, distributions[name])
    return found


def _suggest(trial: optuna.Trial, name: str, among: Distribution) -> JsonValue:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(among, CategoricalDistribution):
        found: JsonValue = json.loads(str(trial.suggest_categorical(name, among.choices)))
        return found
    if isinstance(among, IntDistribution):
        return trial.suggest_int(name, among.low, among.high, step=among.step, log=among.log)
    return trial.suggest_float(name, among.low, among.high, step=among.step, log=among.log)


def _internal(
    parameters: Mapping[str, JsonValue], distributions: Mapping[str, Distribution]
) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution

    return {
        name: json.dumps(value) if isinstance(distributions[name], CategoricalDistribution) else value
        for name, value in parameters.items()
    }


def _no_more(number: int, reason: str) -> Asked:
    return Asked(number=number, parameters=None, reason=reason)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna logs what is known, and warns of what it may change one day: the version is pinned."""
    with while_anyone("Optuna's log", _warnings_alone), heard():
        yield


@contextmanager
def _warnings_alone() -> Iterator[None]:
    import optuna

    # By its handlers: with a level, `logging` forgets what it knows of every logger of the process.
    before = {handler: handler.level for handler in optuna.logging.get_logger("optuna").handlers}
    for handler in before:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in before.items():
            handler.setLevel(level)
