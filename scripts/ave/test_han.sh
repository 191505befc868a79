#!/usr/bin/env bash
# Stage 4 on AVE: evaluate HAN on val and test. Extra arguments go to test_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export CHECKPOINT_DIR=${CHECKPOINT_DIR:-} # stage-3 run; empty: the newest finished one
export DATA_DIR=${DATA_DIR:-data/AVE}
export ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
export RUNS_DIR=${RUNS_DIR:-temp_train_logs} # where runs are looked for
export LOGS_DIR=${LOGS_DIR:-test_logs}

DATASET=AVE bash scripts/test_han.sh "$@"
