#!/usr/bin/env bash
# Stage 2 on AVE: write pseudo-labels. Extra arguments are passed to pseudo_label_generation.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PRETRAINED_TRANSFORMER_DIR=${PRETRAINED_TRANSFORMER_DIR:-} # stage-1 run; empty: the newest finished run
export DATA_DIR=${DATA_DIR:-data/AVE}
export ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
export RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs

DATASET=AVE bash scripts/pseudo_label_generation.sh "$@"
