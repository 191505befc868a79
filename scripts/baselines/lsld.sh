#!/usr/bin/env bash
# LSLD (Fan et al., NeurIPS 2023) on LLP: labels from texts, then train, then evaluate. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CONFIG=${CONFIG:-configs/lsld_llp.yaml} # the recipe; edit it or name another
DATA_DIR=${DATA_DIR:-data/LLP}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}
LOGS_DIR=${LOGS_DIR:-test_logs}
PSEUDO_LABEL_DIR=${PSEUDO_LABEL_DIR:-} # output of an earlier baselines.lsld.refine_labels; empty: generate them

# shellcheck source=scripts/python.sh
source scripts/python.sh
data=(--data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR")
if [[ -z "$PSEUDO_LABEL_DIR" ]]; then
    "$PYTHON" -m baselines.lsld.refine_labels "${data[@]}" --runs_dir "$OUTPUT_DIR"
fi
"$PYTHON" train_han.py --config "$CONFIG" "${data[@]}" --output_dir "$OUTPUT_DIR" \
    ${PSEUDO_LABEL_DIR:+--pseudo_label_dir "$PSEUDO_LABEL_DIR"} "$@"
"$PYTHON" test_han.py --runs_dir "$OUTPUT_DIR" --logs_dir "$LOGS_DIR"
