#!/usr/bin/env bash
# Stage 3: train HAN on video labels and pseudo-labels. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PRETRAINED_TRANSFORMER_DIR=${PRETRAINED_TRANSFORMER_DIR:-} # stage-1 run with pseudo-labels; empty: the newest run
DATASET=${DATASET:-LLP} # or AVE, or one of configs/datasets/
CONFIG=${CONFIG:-} # the recipe; empty: UWAV's for the data set, such as configs/uwav_llp.yaml, which can be edited
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
[[ " $* " == *" --resume"[\ =]* ]] && exec "$PYTHON" train_han.py "$@" # with the settings and folders of that run
recipe=(--dataset "$DATASET")
[[ -n "$CONFIG" ]] && recipe=(--config "$CONFIG")
"$PYTHON" train_han.py "${recipe[@]}" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --output_dir "$OUTPUT_DIR" \
    ${PRETRAINED_TRANSFORMER_DIR:+--pseudo_label_dir "$PRETRAINED_TRANSFORMER_DIR/${DATASET}_Dataset"} "$@"
