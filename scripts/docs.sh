#!/usr/bin/env bash
# Documentation site: build it into site/ (open site/index.html). Extra arguments go to mkdocs build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export REQUIREMENTS="requirements.txt requirements-docs.txt"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict "$@"
