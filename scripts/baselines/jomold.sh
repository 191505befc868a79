#!/usr/bin/env bash
# JoMoLD (Cheng et al., ECCV 2022) on LLP: noise ratios, then train, then evaluate. Extra arguments are passed to both training runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CONFIG=${CONFIG:-configs/jomold_llp.yaml} # the recipe; edit it or name another
ESTIMATOR_CONFIG=${ESTIMATOR_CONFIG:-configs/jomold_base_llp.yaml}
DATA_DIR=${DATA_DIR:-data/LLP}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-temp_train_logs}
LOGS_DIR=${LOGS_DIR:-test_logs}
NOISE_RATIO_DIR=${NOISE_RATIO_DIR:-} # output of an earlier run; empty: train JoMoLD's estimator and compute them

# shellcheck source=scripts/python.sh
source scripts/python.sh
data=(--data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR")
if [[ -z "$NOISE_RATIO_DIR" ]]; then
    "$PYTHON" train_han.py --config "$ESTIMATOR_CONFIG" "${data[@]}" --output_dir "$OUTPUT_DIR" "$@"
    "$PYTHON" -m baselines.jomold.find_noise_ratios "${data[@]}" --runs_dir "$OUTPUT_DIR"
fi
"$PYTHON" train_han.py --config "$CONFIG" "${data[@]}" --output_dir "$OUTPUT_DIR" \
    ${NOISE_RATIO_DIR:+--noise_ratio_dir "$NOISE_RATIO_DIR"} "$@"
"$PYTHON" test_han.py --runs_dir "$OUTPUT_DIR" --logs_dir "$LOGS_DIR"
