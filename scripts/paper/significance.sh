#!/usr/bin/env bash
# Difference between each of our rows in Table 1 and UWAV, with interval and p-value of a paired bootstrap over test videos.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" significance "$@"
