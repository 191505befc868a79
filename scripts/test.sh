#!/usr/bin/env bash
# Environment, linter, shell-script check, all tests. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export REQUIREMENTS=${REQUIREMENTS:-requirements.txt requirements-video.txt}
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
shellcheck --external-sources --shell=bash scripts/*.sh scripts/*/*.sh .ci/run
# A process for each core, with one thread: tiny networks gain nothing from more.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q -n auto --dist worksteal "$@"
