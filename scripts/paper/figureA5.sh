#!/usr/bin/env bash
# Figure A5: re-weighting's W on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" figureA5 "$@"
