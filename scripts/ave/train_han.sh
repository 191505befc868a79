#!/usr/bin/env bash
# Stage 3 on AVE: train HAN on video labels and pseudo-labels. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export CONFIG=${CONFIG:-configs/uwav_ave.yaml} # the recipe; edit it or name another
export PRETRAINED_TRANSFORMER_DIR=${PRETRAINED_TRANSFORMER_DIR:-} # stage-1 run with pseudo-labels; empty: the newest run
export DATA_DIR=${DATA_DIR:-data/AVE}
export ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
export OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

DATASET=AVE bash scripts/train_han.sh "$@"
