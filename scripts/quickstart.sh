#!/usr/bin/env bash
# From nothing to answers: environment, real images (scikit-learn's handwritten digits), training, validation, prediction.
# On 2 CPU cores the part after the installation takes under 5 minutes. Works from any folder; a second run reuses the
# environment and the images and trains afresh.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

python examples/make_digits.py runs/digits

# The recipe, with what a small set of 8x8 digits needs instead of ImageNet: small images, no mirroring, mild crops,
# a few epochs. The learning rate is the recipe's, scaled to this batch (lr_reference_batch).
python train.py -c configs/ghostnet/ghostnet_050_cpu.yaml \
    --data_dir runs/digits --num_classes 10 --ckpt_save_dir runs/quickstart --overwrite True \
    --image_resize 32 --crop_pct 1.0 --scale 0.6 1.0 --hflip 0.0 --auto_augment None --color_jitter None --re_prob 0.0 \
    --batch_size 32 --epoch_size 15 --warmup_epochs 1 --decay_epochs 14 --ckpt_save_interval 10

python validate.py --ckpt_path runs/quickstart/ghostnet_050_best.ckpt

# What the network sees in a few of the images.
mindghost predict 'runs/digits/val/*/*[05]0.png' --ckpt_path runs/quickstart/ghostnet_050_best.ckpt --top_k 1
