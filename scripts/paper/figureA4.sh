#!/usr/bin/env bash
# Figure A4: mixup's alpha on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" figureA4 "$@"
