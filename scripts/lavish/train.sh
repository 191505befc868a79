#!/usr/bin/env bash
# Train LAVISH, or a model that it is compared with (--model). Extra arguments are passed to lavish.train_classifier.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DATASET=${DATASET:-AVE} # or UCF101; must be that of CONFIG
CONFIG=${CONFIG:-} # a recipe; empty: configs/<model>_<dataset>.yaml if it exists, else LAVISH's for the data set
DATA_DIR=${DATA_DIR:-data/$DATASET} # folder with videos/
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR} # AVE's annotations, or the official lists of UCF-101
PACKED_DIR=${PACKED_DIR:-$DATA_DIR/packed_clips}
BACKBONE_WEIGHTS=${BACKBONE_WEIGHTS:-} # hub, random, a file or a folder; empty: as in the recipe
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}

# shellcheck source=scripts/python.sh
source scripts/python.sh
[[ " $* " == *" --resume"[\ =]* ]] && exec "$PYTHON" -m lavish.train_classifier "$@" # with the settings and folders of that run
"$PYTHON" -m lavish.train_classifier ${CONFIG:+--config "$CONFIG"} --data_dir "$DATA_DIR" \
    --annotations_dir "$ANNOTATIONS_DIR" --packed_dir "$PACKED_DIR" --output_dir "$OUTPUT_DIR" \
    ${BACKBONE_WEIGHTS:+--backbone_weights "$BACKBONE_WEIGHTS"} --dataset "$DATASET" "$@"
