#!/usr/bin/env bash
# All four stages on a fresh machine: environment, small simulated data sets, small networks. Prints scores and the folder
# of the figures. Takes a few minutes on two CPU cores after installation.
#   ANNOTATIONS=FOLDER bash scripts/demo.sh    features simulated for real annotations in LLP/, UnAV/, AVE/ there
#   DATASET=AVE bash scripts/demo.sh           the second experiment
set -euo pipefail
if (($#)); then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DATASET=${DATASET:-LLP}            # LLP or AVE
ANNOTATIONS=${ANNOTATIONS:-}       # folder with LLP/, UnAV/, AVE/; empty: generated annotations
DEMO_DIR=${DEMO_DIR:-demo}         # folder of data, runs and tables
NUM_PRETRAIN=${NUM_PRETRAIN:-1000} # UnAV videos for stage 1
NUM_TRAIN=${NUM_TRAIN:-800}        # videos for stage 3
NUM_EVAL=${NUM_EVAL:-300}          # validation videos, and the same number of test videos
STAGE1=${STAGE1:---dim 128 --num_heads 4 --ffn_dim 256 --num_layers 1 --dropout 0.1 --num_epochs 12 --warmup_epochs 2 --lr 1e-3 --batch_size 32}
STAGE3=${STAGE3:---dim 64 --num_heads 4 --ffn_dim 128 --num_layers 1 --num_epochs 16 --warmup_epochs 1 --lr 1e-3 --batch_size 16}

# shellcheck source=scripts/environment.sh
source scripts/environment.sh
stages=scripts
[[ "$DATASET" == AVE ]] && stages=scripts/ave
read -r -a stage1 <<< "$STAGE1"
read -r -a stage3 <<< "$STAGE3"
kind=generated
[[ -n "$ANNOTATIONS" ]] && kind=annotated
data=$DEMO_DIR/data_$kind
export OUTPUT_DIR=$DEMO_DIR/temp_train_logs RUNS_DIR=$DEMO_DIR/temp_train_logs LOGS_DIR=$DEMO_DIR/test_logs

echo "== Simulating features"
for dataset in UnAV "$DATASET"; do
    number=$NUM_TRAIN
    [[ "$dataset" == UnAV ]] && number=$NUM_PRETRAIN
    "$PYTHON" -m simulation --dataset "$dataset" --output "$data" \
        --num_train "$number" --num_val "$NUM_EVAL" --num_test "$NUM_EVAL" ${ANNOTATIONS:+--annotations "$ANNOTATIONS"}
done
echo "== Stage 1: pre-training the temporal transformer on UnAV"
DATA_DIR=$data/UnAV bash "$stages/train_transformer.sh" "${stage1[@]}"
export DATA_DIR=$data/$DATASET
echo "== Stage 2: pseudo-labels for $DATASET"
bash "$stages/pseudo_label_generation.sh"
echo "== Stage 3: training HAN on $DATASET"
bash "$stages/train_han.sh" "${stage3[@]}"
echo "== Stage 4: evaluation"
bash "$stages/test_han.sh"
echo "Simulated features: these numbers show that the code runs, not how good the method is."
echo "Open in a browser: $(find "$LOGS_DIR" -name timelines.html | sort | tail -n 1)"
