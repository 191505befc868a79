#!/usr/bin/env bash
# All tables and figures, one after the other; if one fails, for instance for lack of data, the others are still run. Arguments
# and the variables DATA_ROOT, ANNOTATIONS_ROOT, RUNS_DIR and RESULTS_DIR are those of the single scripts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

failed=()
for name in table1 significance table2 table3 table4 tableA5 tableA6 tableA7 tableA9 figureA4 figureA5 qualitative additions selection factorial; do
    status=0
    bash "$name.sh" "$@" || status=$?
    if ((status >= 128)); then exit "$status"; fi # interrupted
    if ((status)); then failed+=("$name"); fi
done
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
