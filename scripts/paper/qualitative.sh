#!/usr/bin/env bash
# Timelines of HAN, MA, VALOR and UWAV under the truth, in the manner of Figure 3.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" qualitative "$@"
