"""Hashes that are the same in every process: which bucket a value, or a piece of a text, falls into."""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_platform.specs.tables import TextPieces

WORD = re.compile(r"\w+")
CHARACTERS = 3
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def buckets_of(values: pa.Array, buckets: int) -> NDArray[np.int64]:
    """Bucket of each text by CRC-32 of its UTF-8 bytes; 0 for null. Shape (rows,), below `buckets`."""
    encoded = values.dictionary_encode()
    hashes = [zlib.crc32(text.encode()) % buckets for text in encoded.dictionary.to_pylist()]
    table = np.array([*hashes, 0], np.int64)
    found: NDArray[np.int64] = table[encoded.indices.fill_null(len(hashes)).to_numpy(zero_copy_only=False)]
    return found


def mixed(numbers: NDArray[np.int64], buckets: int) -> NDArray[np.int64]:
    """Bucket of each whole number. Shape (rows,), below `buckets`."""
    high = (numbers.astype(np.uint64) * GOLDEN) >> np.uint64(32)
    return (high % np.uint64(buckets)).astype(np.int64)


def text_counts(values: pa.Array, buckets: int, pieces: TextPieces) -> NDArray[np.float32]:
    """How often pieces of each text fall into each bucket, as a vector of length 1; zeros without pieces.

    Returns:
        Shape (rows, buckets), float32.
    """
    at: list[int] = []
    for row, text in enumerate(values.to_pylist()):
        start = row * buckets
        at.extend(start + zlib.crc32(piece.encode()) % buckets for piece in text_pieces(text or "", pieces))
    flat = np.bincount(np.array(at, np.int64), minlength=len(values) * buckets)
    counts = flat.reshape(len(values), buckets).astype(np.float32)
    lengths = np.sqrt(np.square(counts).sum(axis=1, keepdims=True))
    np.divide(counts, lengths, out=counts, where=lengths > 0)
    return counts


def text_pieces(text: str, pieces: TextPieces) -> Iterator[str]:
    """Words and pairs of words, or runs of 3 characters, or both; whatever their case and Unicode form.

    >>> list(text_pieces("Not  GOOD", "words"))
    ['not', 'good', 'not good']
    >>> list(text_pieces("Né", "characters"))
    [' né', 'né ']
    """
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if pieces in {"words", "both"}:
        yield from words
        yield from map(" ".join, itertools.pairwise(words))
    if pieces in {"characters", "both"} and words:
        line = f" {' '.join(words)} "
        yield from (line[at : at + CHARACTERS] for at in range(len(line) - CHARACTERS + 1))
