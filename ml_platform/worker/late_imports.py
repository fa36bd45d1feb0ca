"""Packages that are loaded when somebody uses them, although they are imported before."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

KERAS_FOR_PEOPLE = (
    "keras.visualization",
    "keras.wrappers",
    "keras._tf_keras.keras.visualization",
    "keras._tf_keras.keras.wrappers",
    "keras.src.visualization",
)
"""They import Matplotlib and scikit-learn, with which Keras takes a third longer, and no rank needs them."""

_loading = threading.RLock()


@contextmanager
def loaded_late(names: Collection[str]) -> Iterator[None]:
    """What is imported inside the block finds these packages; the first use of a name in one loads it.

    The standard library's `LazyLoader` would load them as soon as somebody looks where modules come from, and
    TensorFlow does when it traces a function.
    """
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)
        return spec


class _LateLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LateModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["_loader"] = self._loader


class _LateModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            with _loading:
                self._load()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _load(self) -> None:
        loader = self.__dict__.pop("_loader", None)
        if loader is None:
            return
        try:
            loader.exec_module(self)
        except BaseException:
            self.__dict__["_loader"] = loader
            raise
