#!/usr/bin/env bash
# VALOR: framewise pseudo-labels from CLIP and CLAP, then HAN on them, then evaluate. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DATASET=${DATASET:-LLP} # or AVE
CONFIG=${CONFIG:-configs/valor_$(tr '[:upper:]' '[:lower:]' <<< "$DATASET").yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}
LOGS_DIR=${LOGS_DIR:-test_logs}
PSEUDO_LABEL_DIR=${PSEUDO_LABEL_DIR:-} # output of an earlier framewise run; empty: generate them
THRESHOLDS=${THRESHOLDS:-}             # fixed or search; empty: VALOR's own on LLP; simulated features require search

# shellcheck source=scripts/python.sh
source scripts/python.sh
data=(--dataset "$DATASET" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR")
if [[ -z "$PSEUDO_LABEL_DIR" ]]; then
    "$PYTHON" pseudo_label_generation.py --teacher framewise "${data[@]}" --runs_dir "$OUTPUT_DIR" \
        ${THRESHOLDS:+--thresholds "$THRESHOLDS"}
fi
"$PYTHON" train_han.py --config "$CONFIG" "${data[@]}" --output_dir "$OUTPUT_DIR" \
    ${PSEUDO_LABEL_DIR:+--pseudo_label_dir "$PSEUDO_LABEL_DIR"} "$@"
"$PYTHON" test_han.py --dataset "$DATASET" --runs_dir "$OUTPUT_DIR" --logs_dir "$LOGS_DIR"
