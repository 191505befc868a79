#!/usr/bin/env bash
# Difference of each of our rows in Table 1 to UWAV, with interval and p of a paired bootstrap over test videos.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" significance "$@"
