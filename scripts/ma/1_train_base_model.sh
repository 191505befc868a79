#!/usr/bin/env bash
# MA (Wu and Yang, CVPR 2021), stage 1: train the base model. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DATASET=${DATASET:-LLP} # or AVE
CONFIG=${CONFIG:-configs/ma_base_$(tr '[:upper:]' '[:lower:]' <<< "$DATASET").yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" train_han.py --config "$CONFIG" --data_dir "$DATA_DIR" \
    --annotations_dir "$ANNOTATIONS_DIR" --output_dir "$OUTPUT_DIR" "$@"
