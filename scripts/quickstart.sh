#!/usr/bin/env bash
# From nothing to answers: environment, real images (scikit-learn's handwritten digits), training, validation, prediction.
# On 2 CPU cores the part after the installation takes under 5 minutes. Works from any folder; a second run reuses the
# environment and the images and trains afresh.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

python examples/make_digits.py runs/digits

# Everything follows from the images (one line says how), but for the epochs: a few are enough for a first look.
python train.py -c finetune --data_dir runs/digits --epoch_size 8 --ckpt_save_dir runs/quickstart --overwrite

python validate.py --ckpt_path runs/quickstart/ghostnet_100_best.ckpt

# What the network sees in a few of the images.
mindghost predict 'runs/digits/val/*/*[05]0.png' --ckpt_path runs/quickstart/ghostnet_100_best.ckpt --top_k 1
