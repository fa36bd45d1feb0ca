"""A launch from the command line, as `horovodrun` is one: command.py RANKS ANSWER."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from gangs import added_up, opened

with ExitStack() as ends:
    found = list(opened(ends, int(sys.argv[1]), "processes").run(added_up))
    Path(sys.argv[2]).write_text(json.dumps(found))
