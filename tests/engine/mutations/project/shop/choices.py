"""What its names are depends on where it is imported."""

from __future__ import annotations

import sys

if sys.platform:
    from shop.chosen import rate as rate
else:
    from shop.other import rate as rate

try:
    from shop.chosen import limit as limit
except ImportError:
    from shop.absent import limit as limit

try:
    from shop.absent import level
except ImportError:

    def level() -> int:
        return 151


def changed(function):
    return lambda: function() + 1


from shop.chosen import wrapped  # noqa: E402

wrapped = changed(wrapped)
