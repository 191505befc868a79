#!/usr/bin/env bash
# Not in the paper: the epoch chosen on val and on test, for every method, on LLP, AVE and (with its videos) LAVISH.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" selection "$@"
