#!/usr/bin/env bash
# Fetch annotations, published features and weights listed in data/downloads.yaml; interrupted downloads resume.
#   bash scripts/download.sh --list                          all files with size, licence and purpose
#   bash scripts/download.sh LLP UnAV clip clap              annotations, features; weights of CLIP and CLAP
#   bash scripts/download.sh --missing LLP > missing.txt     addresses of missing videos, for yt-dlp
#   bash scripts/download.sh open_clip                       OpenAI's own file, for --clip_backend open_clip
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/python.sh
source scripts/python.sh
"$PYTHON" -m video.extraction.download "$@"
