#!/usr/bin/env bash
# MA, stage 2: find the video labels that are absent from each modality. Extra arguments are passed to baselines.ma.find_exchange.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

BASE_MODEL_DIR=${BASE_MODEL_DIR:-} # run of stage 1; empty: the newest finished run
DATASET=${DATASET:-LLP}            # or AVE
DATA_DIR=${DATA_DIR:-data/$DATASET}
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR}
RUNS_DIR=${RUNS_DIR:-temp_train_logs} # folder searched for runs

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m baselines.ma.find_exchange --dataset "$DATASET" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --runs_dir "$RUNS_DIR" ${BASE_MODEL_DIR:+--checkpoint_dir "$BASE_MODEL_DIR"} "$@"
