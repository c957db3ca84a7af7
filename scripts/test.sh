#!/usr/bin/env bash
# Environment, lint, format and tests, four files at a time. Arguments go to pytest: bash scripts/test.sh -k schedule
set -euo pipefail
. "$(dirname "$0")/environment.sh"

ruff check .
ruff format --check .
# Tests name files and write texts in UTF-8, whatever the locale.
export PYTHONUTF8=1
# By file, so that the runs that a file's tests share are made once; in their order, which has the long files first.
# Four at a time on two cores: tests of ranks and of broken runs wait most of their time.
python -m pytest -n 4 --dist loadfile --no-loadscope-reorder "$@"
