#!/usr/bin/env bash
# Stage 1, shared by all data sets: pre-train on UnAV-100. Extra arguments are passed to train_transformer.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export CONFIG=${CONFIG:-configs/transformer_unav.yaml} # the recipe; edit it or name another
export DATA_DIR=${DATA_DIR:-data/UnAV}
export ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
export OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

bash scripts/train_transformer.sh "$@"
