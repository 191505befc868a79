#!/usr/bin/env bash
# Each of our rows of Table 1 against UWAV: difference, interval and p by paired bootstrap over the test videos.
exec bash "$(dirname "${BASH_SOURCE[0]}")/experiment.sh" significance "$@"
