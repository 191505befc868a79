#!/usr/bin/env bash
# Table 2: HAN, VALOR and UWAV on AVE.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" table2 "$@"
