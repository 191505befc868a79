#!/usr/bin/env bash
# Annotations, published features and weights, by the table data/downloads.yaml. Goes on where it was interrupted.
#   bash scripts/download.sh --list                          what there is: size, licence, what needs it, whether it is there
#   bash scripts/download.sh LLP UnAV weights
#   bash scripts/download.sh --missing LLP > missing.txt     addresses of the videos that are not there, for yt-dlp
#   bash scripts/download.sh open_clip                       OpenAI's own file, for --clip_backend open_clip
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m video.extraction.download "$@"
