#!/usr/bin/env bash
# Table A6: CLIP and CLAP as HAN's features on LLP.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" tableA6 "$@"
