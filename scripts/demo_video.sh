#!/usr/bin/env bash
# From pixels to F-scores without downloads: generated videos with known events, features of small networks with random
# weights, all four stages, and the constant baseline. Takes under five minutes on two CPU cores after installation.
#   RANDOM_WEIGHTS=real bash scripts/demo_video.sh    real architectures with random weights, about an hour
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RANDOM_WEIGHTS=${RANDOM_WEIGHTS:-small}
DEMO_DIR=${DEMO_DIR:-demo/videos}  # folder of videos, features, runs and tables
NUM_EVENTS=${NUM_EVENTS:-6}        # number of different events in the videos
NUM_PRETRAIN=${NUM_PRETRAIN:-60}   # UnAV videos for stage 1
NUM_TRAIN=${NUM_TRAIN:-120}        # LLP videos for stage 3
NUM_EVAL=${NUM_EVAL:-40}           # validation videos, and the same number of test videos
STAGE1=${STAGE1:---dim 128 --num_heads 4 --ffn_dim 256 --num_layers 1 --dropout 0.1 --num_epochs 60 --warmup_epochs 4 --lr 1e-3 --batch_size 16}
STAGE3=${STAGE3:---dim 128 --num_heads 4 --ffn_dim 256 --num_layers 1 --num_epochs 40 --warmup_epochs 2 --lr 1e-3 --batch_size 16}

export REQUIREMENTS="requirements.txt requirements-video.txt"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
read -r -a stage1 <<< "$STAGE1"
read -r -a stage3 <<< "$STAGE3"
export OUTPUT_DIR=$DEMO_DIR/temp_train_logs RUNS_DIR=$DEMO_DIR/temp_train_logs LOGS_DIR=$DEMO_DIR/test_logs

echo "== Generating videos"
common=(--videos --output "$DEMO_DIR" --num_events "$NUM_EVENTS")
"$PYTHON" -m simulation "${common[@]}" --dataset UnAV --longest 30 \
    --num_train "$NUM_PRETRAIN" --num_val "$((NUM_EVAL / 2))" --num_test 1
"$PYTHON" -m simulation "${common[@]}" --dataset LLP \
    --num_train "$NUM_TRAIN" --num_val "$NUM_EVAL" --num_test "$NUM_EVAL"
echo "== Extracting features: $RANDOM_WEIGHTS networks with random weights"
DATASET=UnAV DATA_DIR=$DEMO_DIR/UnAV bash scripts/extract_features.sh --features clip clap --random_weights "$RANDOM_WEIGHTS"
DATASET=LLP DATA_DIR=$DEMO_DIR/LLP bash scripts/extract_features.sh --random_weights "$RANDOM_WEIGHTS"
echo "== Stage 1: pre-training the temporal transformer on UnAV"
DATA_DIR=$DEMO_DIR/UnAV bash scripts/train_transformer.sh "${stage1[@]}"
export DATA_DIR=$DEMO_DIR/LLP
echo "== Stage 2: pseudo-labels for LLP"
bash scripts/pseudo_label_generation.sh
echo "== Stage 3: training HAN on LLP"
bash scripts/train_han.sh "${stage3[@]}"
echo "== Stage 4: evaluation"
bash scripts/test_han.sh
"$PYTHON" -m experiments.constant_baseline --data_dir "$DATA_DIR"
echo "== The page of one video"
video=$(find "$DATA_DIR/raw_videos" -name '*.mp4' | sort | tail -n 1)
bash scripts/parse_video.sh "$video" --random_weights "$RANDOM_WEIGHTS" --output_dir "$DEMO_DIR/parsed_videos/demo"
echo "Generated videos and random weights: these numbers show that the code runs, not how good the method is."
