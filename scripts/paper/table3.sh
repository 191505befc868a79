#!/usr/bin/env bash
# Table 3: quality of the pseudo-labels of VALOR and UWAV on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" table3 "$@"
