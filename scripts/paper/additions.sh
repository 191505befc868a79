#!/usr/bin/env bash
# Not in the paper: cross-modality random combination, labels of PE-A-Frame, and the possible recipes of MM-CSE, on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" additions "$@"
