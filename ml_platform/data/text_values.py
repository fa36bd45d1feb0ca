"""Texts as values of other types, with Arrow: those that Spark's casts give, or a doubt.

Arrow reads some texts as values that are none here, 007 and 0x1F as whole numbers: what looks like one of
them is a doubt, too. A doubt costs time, a wrong value trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.data.csv_sample import BLANK
from ml_platform.data.text_types import KINDS, MISSING, kinds_of
from ml_platform.store.pieces import DoubtError

MOMENT = pa.timestamp("us", "UTC")
NUMBERS = {KINDS.index("bigint"), KINDS.index("double")}
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
ZERO, PLUS, MINUS, SPACE = b"0+- "
AFTER_ZERO = np.frombuffer(b".eE", np.uint8)
"""What may follow a number's first 0; 007 is a code, 0x1F nothing."""


def values_of(texts: pa.Array, kind: str) -> pa.Array:
    """A column of trimmed texts as values of a type of `PATTERNS`; null where they stand for none.

    Raises:
        DoubtError: A text may be no value of this type.

    >>> values_of(pa.array(["1.5", "NA", None, "2"]), "double").to_pylist()
    [1.5, None, None, 2.0]
    """
    try:
        return _CASTS[kind](texts)
    except (pa.ArrowInvalid, DoubtError):
        # Most columns have none of these words.
        known = pc.if_else(_is_missing(texts), pa.scalar(None, pa.string()), texts)
    try:
        return _CASTS[kind](known)
    except pa.ArrowInvalid as error:
        raise DoubtError(str(error)) from error


def trimmed(texts: pa.Array) -> pa.Array:
    """Without white space at either end.

    >>> trimmed(pa.array([" a", "b c", None, ""])).to_pylist()
    ['a', 'b c', None, '']
    """
    return pc.utf8_trim(texts, BLANK) if has_blank_ends(texts) else texts


def has_blank_ends(texts: pa.Array) -> bool:
    lengths, content, starts = _bytes(texts)
    starts, ends = starts[lengths > 0], (starts + lengths)[lengths > 0]
    return bool((content[starts] <= SPACE).any() or (content[ends - 1] <= SPACE).any())


def all_missing(texts: pa.Array) -> bool:
    return bool(pc.all(pc.or_(texts.is_null(), _is_missing(texts))).as_py() in (True, None))


def _is_missing(texts: pa.Array) -> pa.BooleanArray:
    return pc.is_in(texts, value_set=pa.array(MISSING, pa.string()))


def _whole(texts: pa.Array) -> pa.Array:
    _refuse_codes(texts)
    return texts.cast(pa.int64())


def _number(texts: pa.Array) -> pa.Array:
    _refuse_codes(texts)
    numbers = texts.cast(pa.float64())
    unusual = pc.invert(pc.less(pc.abs(numbers), 2.0**63))
    # Whole ones beyond 64 bits are codes; of the words for no value NaN alone is read as a number.
    if unusual.true_count and not set(kinds_of(texts.filter(unusual)).tolist()) <= NUMBERS:
        raise DoubtError("a number that is none")
    return numbers


def _truth(texts: pa.Array) -> pa.Array:
    true, false = (pc.is_in(texts, value_set=pa.array(words)) for words in (TRUE, FALSE))
    if true.true_count + false.true_count + texts.null_count != len(texts):
        raise DoubtError("a truth value that is none")
    return pc.if_else(texts.is_valid(), true, None)


def _day(texts: pa.Array) -> pa.Array:
    return texts.cast(pa.date32())


def _moment(texts: pa.Array) -> pa.Array:
    """Of the session's zone, which is UTC. Arrow also takes an hour without minutes, Spark does not."""
    lengths, content, starts = _bytes(texts)
    if ((lengths > len("2026-12-31")) & (lengths < len("2026-12-31 23:59"))).any():
        raise DoubtError("a moment without minutes")
    if len(content) and (content[(starts + lengths)[lengths > 0] - 1] == ord("Z")).all():
        if (lengths[lengths > 0] < len("2026-12-31 23:59:59Z")).any():
            raise DoubtError("a zone behind minutes")
        return pc.utf8_slice_codeunits(texts, 0, -1).cast(pa.timestamp("us")).cast(MOMENT)
    try:
        return texts.cast(pa.timestamp("us")).cast(MOMENT)
    except pa.ArrowInvalid:
        if set(kinds_of(texts.drop_null()).tolist()) != {KINDS.index("timestamp")}:
            raise
        return texts.cast(MOMENT)


_CASTS: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "bigint": _whole,
    "double": _number,
    "boolean": _truth,
    "date": _day,
    "timestamp": _moment,
}


def _refuse_codes(texts: pa.Array) -> None:
    lengths, content, starts = _bytes(texts)
    some = lengths > 1
    starts, lengths = starts[some], lengths[some]
    first = content[starts]
    signed = (first == MINUS) | (first == PLUS)
    at = starts + signed
    zeros = at[(content[at] == ZERO) & (lengths - signed > 1)]
    if not np.isin(content[zeros + 1], AFTER_ZERO).all():
        raise DoubtError("a number that begins with 0")


def _bytes(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Length of each text, all bytes, and where each text begins in them. A null has none."""
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    plain = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    return np.diff(ends), plain, ends[:-1]
