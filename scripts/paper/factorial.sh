#!/usr/bin/env bash
# Not in the paper: Table 4 as a factorial of soft labels, re-weighting, mixup and CMRC, with bootstrap intervals.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" factorial "$@"
