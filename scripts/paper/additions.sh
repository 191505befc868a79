#!/usr/bin/env bash
# Beyond the paper: CMRC (cross-modality random combination), labels of PE-A-Frame, and recipes of MM-CSE on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" additions "$@"
