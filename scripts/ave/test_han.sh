#!/usr/bin/env bash
# Stage 4 on AVE: evaluate HAN on val and test. Extra arguments are passed to test_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export CHECKPOINT_DIR=${CHECKPOINT_DIR:-} # stage-3 run; empty: the newest finished run
export DATA_DIR=${DATA_DIR:-data/AVE}
export ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
export RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs
export LOGS_DIR=${LOGS_DIR:-test_logs}

DATASET=AVE bash scripts/test_han.sh "$@"
