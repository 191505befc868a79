#!/usr/bin/env bash
# All tables and figures, one after the other; what one of them lacks (data, say) does not keep the others from running.
# Arguments go to each script, the variables are theirs: DATA_ROOT, ANNOTATIONS_ROOT, RUNS_DIR, RESULTS_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

failed=()
for name in table1 significance table2 table3 table4 tableA5 tableA6 tableA7 tableA9 figureA4 figureA5 qualitative additions selection factorial; do
    status=0
    bash "$name.sh" "$@" || status=$?
    if ((status >= 128)); then exit "$status"; fi # stopped by hand
    if ((status)); then failed+=("$name"); fi
done
if ((${#failed[@]})); then
    echo "not made: ${failed[*]}" >&2
    exit 1
fi
