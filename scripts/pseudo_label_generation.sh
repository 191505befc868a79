#!/usr/bin/env bash
# Stage 2: write pseudo-labels. Extra arguments are passed to pseudo_label_generation.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PRETRAINED_TRANSFORMER_DIR=${PRETRAINED_TRANSFORMER_DIR:-} # stage-1 run; empty: the newest finished run
DATASET=${DATASET:-LLP} # or AVE
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" pseudo_label_generation.py --dataset "$DATASET" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --runs_dir "$RUNS_DIR" \
    ${PRETRAINED_TRANSFORMER_DIR:+--transformer_dir "$PRETRAINED_TRANSFORMER_DIR"} "$@"
