#!/usr/bin/env bash
# Table A7: fewer training videos and fewer classes of LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" tableA7 "$@"
