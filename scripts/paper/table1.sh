#!/usr/bin/env bash
# Table 1: HAN, MA, JoMoLD, CMPAE, VALOR, LSLD, CoLeaF, LEAP and UWAV on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" table1 "$@"
