#!/usr/bin/env bash
# Tables 4 and A8: ablation of soft labels, re-weighting and mixup on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" table4 "$@"
