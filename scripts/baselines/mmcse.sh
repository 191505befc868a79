#!/usr/bin/env bash
# MM-CSE (Zhao et al., AAAI 2025) on LLP: VALOR's labels, then train, then evaluate. Extra arguments are passed to train_han.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CONFIG=${CONFIG:-configs/mmcse_llp.yaml} exec bash scripts/baselines/valor.sh "$@"
