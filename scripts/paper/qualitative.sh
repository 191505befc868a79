#!/usr/bin/env bash
# Timelines of the ground truth, HAN, MA, VALOR and UWAV, as in Figure 3.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" qualitative "$@"
