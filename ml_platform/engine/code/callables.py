"""What can be called, as text: functions and methods of the project, of packages, and what wraps them."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

from ml_platform.engine.code.origin import origin

if TYPE_CHECKING:
    from ml_platform.engine.code.walk import Part, Walk


def function_text(value: types.FunctionType, part: Part, path: str, walk: Walk) -> str:
    module = str(value.__globals__.get("__name__") or value.__module__ or "")
    if origin(module) == "project":
        return part.use(walk.function(value))
    if is_importable(value):
        return walk.foreign(value.__module__, (value.__qualname__,), part)
    # Made by a package around a function of the project: what it holds is what it does.
    made = walk.foreign(module, (value.__code__.co_qualname,), part)
    return f"{made} {part.use(walk.wrapper(value, value.__module__ or module))}"


def method_text(value: types.MethodType, part: Part, path: str, walk: Walk) -> str:
    if is_importable(value):
        return walk.foreign(module_of(value), (value.__name__,), part)
    function = walk.value(value.__func__, part, path)
    return f"{function} of {walk.value(value.__self__, part, path)}"


def builtin_text(value: Any, part: Part, path: str, walk: Walk) -> str:
    owner = value.__self__
    if isinstance(owner, types.ModuleType) or owner is None or is_importable(value):
        module = module_of(value)
        if origin(module) == "project":
            return part.use(walk.late.module(module, part))
        return walk.foreign(module, (value.__name__,), part)
    return f"{value.__name__} of {walk.value(owner, part, path)}"


def descriptor_text(value: Any, part: Part, path: str, walk: Walk) -> str:
    """A method of a class that is written in C: `str.__format__`."""
    return f"{walk.value(value.__objclass__, part, path)}.{value.__name__}"


def partial_text(value: Any, part: Part, path: str, walk: Walk) -> str:
    """Of a `partial` or a `partialmethod`, whose function may be a descriptor that nobody can call yet."""
    function = walk.value(value.func, part, path)
    arguments = walk.value([value.args, value.keywords], part, path)
    return f"partial {function} {arguments}"


def dispatched_method_text(
    value: functools.singledispatchmethod[Any], part: Part, path: str, walk: Walk
) -> str:
    return f"dispatched {walk.value(value.dispatcher, part, path)}"


def cached_text(value: Any, part: Part, path: str, walk: Walk) -> str:
    return f"cached {walk.value(value.__wrapped__, part, path)} {value.cache_parameters()}"


def static_text(value: Any, part: Part, path: str, walk: Walk) -> str:
    return f"{type(value).__name__} {walk.value(value.__func__, part, path)}"


def property_text(value: property, part: Part, path: str, walk: Walk) -> str:
    found = (walk.value(f, part, path) for f in (value.fget, value.fset, value.fdel))
    return f"property {' '.join(found)}"


def cached_property_text(value: functools.cached_property[Any], part: Part, path: str, walk: Walk) -> str:
    return f"cached property {walk.value(value.func, part, path)}"


def task_function(value: Any) -> Any:
    """The function of a Prefect task or flow, or of ours."""
    for kind in type(value).__mro__:
        if kind.__module__.startswith("prefect.") and kind.__name__ in {"Task", "Flow"}:
            return getattr(value, "function", None) or value.fn
    return None


def is_importable(value: Any) -> bool:
    """Whether a package or the standard library has this very object under its own name."""
    module, name = module_of(value), getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    if not module or not isinstance(name, str) or origin(module) == "project":
        return False
    found: Any = sys.modules.get(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    plain = getattr(value, "__name__", "")
    return found is value or getattr(sys.modules.get(module), str(plain) or "-", None) is value


def module_of(value: Any) -> str:
    found = getattr(value, "__module__", None)
    if found is None and hasattr(value, "__self__"):
        found = type(value.__self__).__module__
    return found if isinstance(found, str) else ""
