#!/usr/bin/env bash
# One table or figure of the paper, as the scripts beside this one name it: experiment.sh NAME. Further arguments, such
# as --seeds and --preset: see `python -m experiments --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NAME=$1
DATA_ROOT=${DATA_ROOT:-data} # holds LLP/, UnAV/ and AVE/
ANNOTATIONS_ROOT=${ANNOTATIONS_ROOT:-$DATA_ROOT}
RUNS_DIR=${RUNS_DIR:-temp_train_logs/paper} # finished runs in it are not repeated
RESULTS_DIR=${RESULTS_DIR:-}                # empty: results, or results/<preset>

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m experiments "$NAME" --data_root "$DATA_ROOT" --annotations_root "$ANNOTATIONS_ROOT" --runs_dir "$RUNS_DIR" \
    ${RESULTS_DIR:+--results_dir "$RESULTS_DIR"} "${@:2}"
