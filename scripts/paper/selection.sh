#!/usr/bin/env bash
# Beyond the paper: epochs selected on val and on test, for all methods on LLP and AVE, and LAVISH if AVE's videos exist.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" selection "$@"
