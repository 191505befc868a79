#!/usr/bin/env bash
# All tables and figures on simulated features at the small preset, collected in docs/simulated_results.md.
# Arguments go to the scripts in scripts/paper/, --seeds for instance.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ANNOTATIONS=${ANNOTATIONS-../shared/annotations} # real annotation files in LLP/, UnAV/, AVE/; empty: simulate them, too

# shellcheck source=scripts/python.sh
source scripts/python.sh
export DATA_ROOT=${DATA_ROOT:-data/simulated}
export RUNS_DIR=${RUNS_DIR:-temp_train_logs/simulated}
export RESULTS_DIR=${RESULTS_DIR:-results/small}
REPORT=${REPORT:-docs/simulated_results.md}
COMMIT=$(git rev-parse --short HEAD)

simulate() { # data set, videos of train, val and test, further flags
    "$PYTHON" -m simulation --output "$DATA_ROOT" ${ANNOTATIONS:+--annotations "$ANNOTATIONS"} \
        --dataset "$1" --num_train "$2" --num_val "$3" --num_test "$4" "${@:5}"
}
simulate LLP 1000 649 1200 # all of val and test
simulate LLP 1000 649 1200 --features pe_audio
simulate UnAV 1200 150 10
simulate AVE 600 200 300
if [[ ! -e "$DATA_ROOT/AVE/videos" ]]; then # of the same truth, for LAVISH
    DATA_ROOT=$DATA_ROOT/clips simulate AVE 600 200 300 --videos
    ln -s ../clips/AVE/raw_videos "$DATA_ROOT/AVE/videos"
fi
bash scripts/paper/all.sh --preset small "$@"
labels=("$RUNS_DIR"/labels_LLP-*/)
"$PYTHON" -m experiments.tune --preset small --seeds 20000 20001 20002 --output_dir "$RUNS_DIR/tune" -- \
    --data_dir "$DATA_ROOT/LLP" --pseudo_label_dir "${labels[0]}LLP_Dataset"

{
    cat << HEADER
# Results on simulated features

**Simulated**: features are drawn from the generative model of [simulation.md](simulation.md), around the real annotations where they
are at hand; networks are small and training is short. Only orders may be compared with the published numbers.

Made by one command at commit $COMMIT (1000 training videos of LLP, 1200 of UnAV, 600 of AVE; preset
[\`small\`](../configs/presets/small.yaml)):

    ANNOTATIONS=$ANNOTATIONS bash scripts/simulated_results.sh $*

[experiments.md](experiments.md) says what each table runs.

HEADER
    "$PYTHON" -m experiments.orders "$RESULTS_DIR"
    for table in table1 significance table2 table3 table4 tableA5 tableA6 tableA7_training_videos tableA7_classes tableA9 \
        figureA4 figureA5 additions selection factorial; do
        printf '\n'
        cat "$RESULTS_DIR/$table.md"
        if [[ -f "experiments/notes/$table.md" ]]; then printf '\n' && cat "experiments/notes/$table.md"; fi
    done
    printf '\n![Effects](images/factorial.png)\n\n' && cat "$RUNS_DIR/tune/tuned.md"
} > "$REPORT"
cp "$RESULTS_DIR/factorial.png" docs/images/factorial.png
echo "written: $REPORT"
