#!/usr/bin/env bash
# Environment, lint, format and tests. Arguments go to pytest: bash scripts/test.sh -k schedule
set -euo pipefail
. "$(dirname "$0")/environment.sh"

ruff check .
ruff format --check .
python -m pytest "$@"
