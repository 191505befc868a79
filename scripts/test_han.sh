#!/usr/bin/env bash
# Stage 4: evaluate HAN on val and test. Extra arguments are passed to test_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CHECKPOINT_DIR=${CHECKPOINT_DIR:-} # stage-3 run; empty: the newest finished run
DATASET=${DATASET:-LLP} # or AVE
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs
LOGS_DIR=${LOGS_DIR:-test_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" test_han.py --dataset "$DATASET" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --runs_dir "$RUNS_DIR" --logs_dir "$LOGS_DIR" \
    ${CHECKPOINT_DIR:+--checkpoint_dir "$CHECKPOINT_DIR"} "$@"
