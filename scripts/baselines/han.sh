#!/usr/bin/env bash
# HAN (Tian et al., ECCV 2020) on video labels: train, then evaluate. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DATASET=${DATASET:-LLP} # or AVE
CONFIG=${CONFIG:-configs/han_$(tr '[:upper:]' '[:lower:]' <<< "$DATASET").yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}
LOGS_DIR=${LOGS_DIR:-test_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" train_han.py --config "$CONFIG" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --output_dir "$OUTPUT_DIR" "$@"
"$PYTHON" test_han.py --dataset "$DATASET" --runs_dir "$OUTPUT_DIR" --logs_dir "$LOGS_DIR"
