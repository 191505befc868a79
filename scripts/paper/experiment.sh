#!/usr/bin/env bash
# One table or figure: experiment.sh NAME, where NAME is that of a script in this folder. See `python -m experiments
# --help` for further arguments such as --seeds and --preset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NAME=$1
DATA_ROOT=${DATA_ROOT:-data} # folder with LLP/, UnAV/ and AVE/
ANNOTATIONS_ROOT=${ANNOTATIONS_ROOT:-$DATA_ROOT}
RUNS_DIR=${RUNS_DIR:-temp_train_logs/paper} # finished runs in this folder are not repeated
RESULTS_DIR=${RESULTS_DIR:-}                # empty: results, or results/<preset>

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m experiments "$NAME" --data_root "$DATA_ROOT" --annotations_root "$ANNOTATIONS_ROOT" --runs_dir "$RUNS_DIR" \
    ${RESULTS_DIR:+--results_dir "$RESULTS_DIR"} "${@:2}"
