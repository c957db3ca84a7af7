#!/usr/bin/env bash
# The tests, and which lines of src/mindghost they run, in processes that they start too; fails below 90 %.
# What counts is said in pyproject.toml, [tool.coverage]. Arguments go to pytest: bash scripts/coverage.sh tests/config
set -euo pipefail
. "$(dirname "$0")/environment.sh"

export PYTHONUTF8=1
rm -rf .coverage
mkdir .coverage
coverage run -m pytest -n 4 --dist loadfile --no-loadscope-reorder "$@" ||
    echo "Whether the tests pass is said by scripts/test.sh: the measuring needs files and memory that some tests forbid."
coverage combine --quiet
coverage report
