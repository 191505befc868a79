#!/usr/bin/env bash
# All benchmarks against a naive implementation, on simulated features with real shapes (docs/performance.md).
#   bash scripts/benchmark.sh --quick       a smaller sample, in under three minutes on two CPU cores
#   bash scripts/benchmark.sh --accuracy    only the accuracy of bf16 against float32
#   bash scripts/benchmark.sh --layers      only the time that each fast layer saves
#   ANNOTATIONS=FOLDER bash scripts/benchmark.sh    real annotations with real lengths of videos
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ANNOTATIONS=${ANNOTATIONS:-}         # folder with LLP/ and UnAV/; empty: generated annotations
WORK_DIR=${WORK_DIR:-data/benchmark} # folder of data (9 GB without --quick) and results

# shellcheck source=scripts/environment.sh
source scripts/environment.sh
export TQDM_DISABLE=1 # no progress bars
"$PYTHON" -m benchmarks.run --work_dir "$WORK_DIR" ${ANNOTATIONS:+--annotations "$ANNOTATIONS"} "$@"
