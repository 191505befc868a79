#!/usr/bin/env bash
# Extract features of a data set's videos or any others. Extra arguments are passed to video.extract_features.
#   DATASET=UnAV bash scripts/extract_features.sh                     to data/UnAV, beside the annotations
#   DATASET= bash scripts/extract_features.sh --videos my_videos/     to features/
#   bash scripts/extract_features.sh --shard 3/16                     only the third of sixteen parts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DATASET=${DATASET-LLP} # or UnAV, AVE; empty: the videos given by --videos
DATA_DIR=${DATA_DIR:-data/$DATASET}
VIDEOS_DIR=${VIDEOS_DIR:-$DATA_DIR/raw_videos} # <id>.mp4, ...
WEIGHTS_DIR=${WEIGHTS_DIR:-weights}            # bash scripts/download.sh vggish res152 r2plus1d_18 clip clap

# shellcheck source=scripts/python.sh
source scripts/python.sh
dataset=()
[[ -n "$DATASET" ]] && dataset=(--dataset "$DATASET" --annotations_dir "$DATA_DIR" --videos_dir "$VIDEOS_DIR" --output "$DATA_DIR")
"$PYTHON" -m video.extract_features "${dataset[@]}" --weights_dir "$WEIGHTS_DIR" "$@"
