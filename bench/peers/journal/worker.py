"""One process of a study: worker.py JOURNAL TRIALS SECONDS SEED."""

import sys

import optuna
import trial
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

journal, trials, seconds, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.load_study(
    study_name="search",
    storage=JournalStorage(JournalFileBackend(journal)),
    sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
)
study.optimize(lambda asked: trial.loss(asked.suggest_float("x", 0, 1), seconds), n_trials=trials)
