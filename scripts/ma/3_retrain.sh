#!/usr/bin/env bash
# MA, stage 3: retrain from scratch on the cleaned labels, then evaluate. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

BASE_MODEL_DIR=${BASE_MODEL_DIR:-} # run of stage 1 with stage 2's output; empty: the newest run
DATASET=${DATASET:-LLP}            # or AVE
CONFIG=${CONFIG:-configs/ma_$(tr '[:upper:]' '[:lower:]' <<< "$DATASET").yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}
LOGS_DIR=${LOGS_DIR:-test_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" train_han.py --config "$CONFIG" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --output_dir "$OUTPUT_DIR" ${BASE_MODEL_DIR:+--cleaned_label_dir "$BASE_MODEL_DIR/${DATASET}_Exchange"} "$@"
"$PYTHON" test_han.py --dataset "$DATASET" --runs_dir "$OUTPUT_DIR" --logs_dir "$LOGS_DIR"
