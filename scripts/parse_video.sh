#!/usr/bin/env bash
# Parse your own video: bash scripts/parse_video.sh VIDEO. Extra arguments are passed to video.parse_video.
#   bash scripts/parse_video.sh VIDEO --networks light                               without training, 29 MB of weights
#   bash scripts/parse_video.sh VIDEO --networks clip_clap --events "dog barking"    without training, any events
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) # no cd: paths of videos are relative to the current folder

MODEL=${MODEL:-} # run folder, exported folder or hub id; empty: the newest HAN in RUNS_DIR, or light networks if there is none
RUNS_DIR=${RUNS_DIR:-$ROOT/temp_train_logs}
WEIGHTS_DIR=${WEIGHTS_DIR:-$ROOT/weights} # of the feature networks

# shellcheck source=scripts/python.sh
source "$ROOT/scripts/python.sh"
PYTHONPATH=$ROOT "$PYTHON" -m video.parse_video --runs_dir "$RUNS_DIR" --weights_dir "$WEIGHTS_DIR" ${MODEL:+--model "$MODEL"} "$@"
