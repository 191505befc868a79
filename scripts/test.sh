#!/usr/bin/env bash
# Environment, linters for code and text, shell-script check, all tests. Extra arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export REQUIREMENTS="${REQUIREMENTS:-requirements.txt requirements-video.txt} requirements-dev.txt requirements-docs.txt"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
codespell -D - -D scripts/british.txt . # spelling; British where no name of a library is American
proselint check ./*.md {docs,data,baselines/*,tests/*,experiments/*}/*.md # style; .proselintrc.json names the rules
shellcheck --external-sources --shell=bash scripts/*.sh scripts/*/*.sh .ci/run
# One process per core with one thread each: tiny networks do not benefit from more.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q -n auto --dist worksteal "$@"
