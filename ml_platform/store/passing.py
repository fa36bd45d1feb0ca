"""Objects that live as long as a block, in the store, where all machines that work for it reach them."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform.store.folders import local_path, scheme_of
from ml_platform.store.leftovers import PASSING, builder
from ml_platform.store.location import data_uri
from ml_platform.store.objects import open_objects

log = logging.getLogger(__name__)

_made = itertools.count()


@contextmanager
def passing_objects() -> Iterator[str]:
    """URI of a place for objects that nobody needs afterwards.

    What cannot be removed at the end, or was left by a kill, a later run or `cache gc` removes.
    """
    uri = f"{data_uri()}/{PASSING}/{builder()}-{next(_made)}"
    try:
        yield uri
    finally:
        _remove(uri)


def _remove(uri: str) -> None:
    if scheme_of(uri) == "file":
        folder = local_path(uri)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.parent.rmdir()
        except OSError:
            return  # another job's objects are there, or none ever were
    else:
        objects = open_objects(uri)
        try:
            for entry in list(objects.walk()):
                objects.remove(entry.key)
        except OSError as error:
            log.warning("%s cannot be removed: %s", uri, error)
