#!/usr/bin/env bash
# Every benchmark beside a naive implementation, on simulated features at true shapes; docs/performance.md explains it.
#   bash scripts/benchmark.sh --quick       a smaller sample, in under three minutes on two CPU cores
#   bash scripts/benchmark.sh --accuracy    what bf16 costs in accuracy, instead
#   bash scripts/benchmark.sh --layers      what each fast layer saves, instead
#   ANNOTATIONS=../shared/annotations bash scripts/benchmark.sh    real annotations, and so the real lengths of videos
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ANNOTATIONS=${ANNOTATIONS:-}         # folder that holds LLP/ and UnAV/; empty: annotations are generated
WORK_DIR=${WORK_DIR:-data/benchmark} # takes data (9 GB without --quick) and results

# shellcheck source=scripts/environment.sh
source scripts/environment.sh
export TQDM_DISABLE=1 # bars of every few timed steps
"$PYTHON" -m benchmarks.run --work_dir "$WORK_DIR" ${ANNOTATIONS:+--annotations "$ANNOTATIONS"} "$@"
