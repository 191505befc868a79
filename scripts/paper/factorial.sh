#!/usr/bin/env bash
# Beyond the paper: factorial of soft labels, re-weighting, mixup and CMRC (as Table 4), with bootstrap intervals.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" factorial "$@"
