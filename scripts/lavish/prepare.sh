#!/usr/bin/env bash
# Pack the clips of AVE or UCF-101: decode frames and audio once. Extra arguments are passed to lavish.prepare_clips.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DATASET=${DATASET:-AVE} # or UCF101
DATA_DIR=${DATA_DIR:-data/$DATASET} # folder with videos/
ANNOTATIONS_DIR=${ANNOTATIONS_DIR:-$DATA_DIR} # AVE's annotations, or the official lists of UCF-101
PACKED_DIR=${PACKED_DIR:-$DATA_DIR/packed_clips}

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m lavish.prepare_clips --dataset "$DATASET" --data_dir "$DATA_DIR" --annotations_dir "$ANNOTATIONS_DIR" \
    --packed_dir "$PACKED_DIR" "$@"
