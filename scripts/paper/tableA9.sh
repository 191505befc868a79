#!/usr/bin/env bash
# Table A9: labels of the mixup loss on AVE.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" tableA9 "$@"
