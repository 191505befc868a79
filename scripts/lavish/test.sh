#!/usr/bin/env bash
# Evaluate a clip classifier on val and test. Extra arguments are passed to lavish.test_classifier.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CHECKPOINT_DIR=${CHECKPOINT_DIR:-} # run of train.sh; empty: the newest finished run
RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs
LOGS_DIR=${LOGS_DIR:-test_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m lavish.test_classifier --runs_dir "$RUNS_DIR" --logs_dir "$LOGS_DIR" \
    ${CHECKPOINT_DIR:+--checkpoint_dir "$CHECKPOINT_DIR"} "$@"
