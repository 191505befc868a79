#!/usr/bin/env bash
# Table A5: computing time on this machine.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" tableA5 "$@"
