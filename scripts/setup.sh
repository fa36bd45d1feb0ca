#!/bin/sh
# Finds a Python that fits and hands over to setup.py, which only such a Python can read.
# PYTHON in the environment chooses one; else the environment's own is kept; else the first that fits.
set -eu
cd "$(dirname "$0")/.."

fits() {
    "$1" -Ic 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

for candidate in ${PYTHON:-.venv/bin/python python3.11 python3.12 python3.13 python3}; do
    if fits "$candidate"; then
        exec "$candidate" -I scripts/setup.py "$@"
    fi
done
echo "setup: Python 3.11, 3.12 or 3.13 is needed; found $("${PYTHON:-python3}" -V 2>&1 | head -1)." \
    "Debian, Ubuntu: apt install python3.11 python3.11-venv; Fedora: dnf install python3.11;" \
    "or name one: make setup PYTHON=/path/to/python3.11" >&2
exit 1
