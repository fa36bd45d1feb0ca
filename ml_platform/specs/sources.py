"""How a table is written, where its file does not say so itself."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ml_platform.specs.base import Spec

SourceKind = Literal["csv", "json", "parquet", "orc"]


class ReadingSpec(Spec):
    """How to read a file of text. What is left empty is found out."""

    kind: SourceKind | None = Field(
        None, description="Empty: by the end of the file's name, or its first bytes."
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="What stands between fields. Empty: , ; | or a tab."
    )
    encoding: str | None = Field(
        None,
        description="Such as cp1252. Empty: UTF-8, UTF-16 with a byte-order mark, else cp1252 or Latin-1.",
    )
    header: tuple[str, ...] = Field(
        (), description="Names of the columns, of a file whose first line has none."
    )
    has_header: bool | None = Field(
        None,
        description="Whether the first line is names. Empty: it is, unless it looks like the lines below.",
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return codecs.lookup(value).name.replace("utf-8-sig", "utf-8")
        except LookupError as error:
            raise ValueError(f"no encoding is named {value!r}") from error

    @model_validator(mode="after")
    def _is_named_once(self) -> ReadingSpec:
        if self.header and self.has_header:
            raise ValueError("header is for a file whose first line has no names, and has_header is true")
        return self
