#!/usr/bin/env bash
# Stage 1: pre-train the temporal transformer on UnAV-100. Extra arguments are passed to train_transformer.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONFIG=${CONFIG:-configs/transformer_unav.yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/UnAV}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
[[ " $* " == *" --resume"[\ =]* ]] && exec "$PYTHON" train_transformer.py "$@" # with the settings and folders of that run
"$PYTHON" train_transformer.py --config "$CONFIG" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --output_dir "$OUTPUT_DIR" "$@"
