"""The page on tables names options that there are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from flows.batch_inference import batch_inference
from flows.retrain import retrain
from tests.docs.test_readme import ROOT

PAGE = (ROOT / "docs" / "tables.md").read_text()
OTHERS = {"help", "force", "until", "json", "placement", "schema"}
"""Of all flows; and one that has another name in Python."""


def options(annotation: Any, name: str) -> Iterator[str]:
    """Names as the command line has them; of a mapping by column, with any name of a column."""
    yield name
    members = [member for member in get_args(annotation) if isinstance(member, type)] or [annotation]
    if get_origin(annotation) is dict:
        yield f"{name}.*"
        name = f"{name}.*"
    for member in members:
        if isinstance(member, type) and issubclass(member, BaseModel):
            for field, info in member.model_fields.items():
                yield from options(info.annotation, f"{name}.{field.replace('_', '-')}")


def test_every_option_on_the_page_is_there() -> None:
    known = set(OTHERS)
    for flow in (retrain, batch_inference):
        for parameter in inspect.signature(flow.fn, eval_str=True).parameters.values():
            known.update(options(parameter.annotation, parameter.name.replace("_", "-")))
    named = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*[a-z])", PAGE))
    assert len(named) > 20
    unknown = {
        option
        for option in named
        if not any(re.fullmatch(one.replace(".", r"\.").replace("*", r"[\w-]+"), option) for one in known)
    }
    assert unknown == set()
