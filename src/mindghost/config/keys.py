"""Every key once, with its type, range, default and meaning.

The keys are MindCV's, so its recipes load unchanged, and a few of ours (tests/config/test_keys.py lists them).
The docstring under a key is the only description of it: `--help` prints it. Importing this module does not
import MindSpore.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .types import (
    INT_MAX,
    AmpLevel,
    AreaRange,
    AutoAugment,
    CastList,
    ClassWeights,
    ColorJitter,
    Count,
    Dataset,
    DecayEpochs,
    DecoderWidth,
    EraseValue,
    EvaluationLevel,
    ImageSize,
    Interpolation,
    LayerChannels,
    LossScaleType,
    Mean,
    Milestones,
    Name,
    Natural,
    NotNegative,
    Optimizer,
    Positive,
    Pretrained,
    RatioRange,
    Scheduler,
    Share,
    ShareAbove0,
    ShareBelow1,
    Std,
    Text,
)

# The key that opens each group, in the order of the class below: the headings of --help and of to_yaml().
_GROUPS = {
    "mode": "System",
    "dataset": "Dataset",
    "image_resize": "Augmentation",
    "model": "Model, checkpoints and training loop",
    "opt": "Optimizer",
    "scheduler": "Learning rate",
    "loss": "Loss",
    "amp_level": "Mixed precision and evaluation",
}

# Keys that change where files go, what is printed, where weights start from or how fast a run is, not what a training
# step computes: they may differ in a resumed run.
FREE_KEYS = frozenset(
    {
        "log_interval",
        "tensorboard",
        "keep_checkpoint_max",
        "ckpt_save_interval",
        "ckpt_save_interval_steps",
        "ckpt_save_policy",
        "ckpt_save_dir",
        "patience",  # the steps of an epoch are the same, whether or not it is the last one
        "num_parallel_workers",
        "compile_cache",
        "auto",  # what it settled is compared
        "overwrite",
        "report",
        "predictions",
        "resume",
        "resume_force",
        "data_dir",
        "train_list",
        "val_list",
        "exclude_list",
        "class_names",
        "on_bad_image",  # as data_dir: the digest of the images says whether they are the same
        "image_digests",
        "dataset_download",
        "init",
        "ckpt_path",
        "backbone_ckpt_path",
        "pretrained",
        "resume_opt",
        "device_target",
    }
)

# Keys of files and folders, which may have other names on each host of a run; its ranks compare what is in them.
PLACE_KEYS = frozenset(
    {
        "resume",
        "data_dir",
        "train_list",
        "val_list",
        "exclude_list",
        "class_names",
        "ckpt_path",
        "backbone_ckpt_path",
        "teacher_ckpt_path",
        "ckpt_save_dir",
        "report",
        "predictions",
    }
)

# Keys that `auto` settles where they are not given (train/settle.py).
AUTO_KEYS = (
    "pretrained",
    "image_resize",
    "crop_pct",
    "hflip",
    "batch_size",
    "lr",
    "head_lr_factor",
    "epoch_size",
    "patience",
    "val_fraction",
)


class Keys(BaseModel):
    """The keys, each with its type, default and meaning; `Config` is what a run has."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    mode: Annotated[int, Field(ge=0, le=1)] = 0
    """How MindSpore runs: 0 compiles the network to a graph, 1 runs it operator by operator, to debug."""
    distribute: bool = False
    """Train data-parallel on all ranks that mpirun or msrun started; of several ranks it is True unless a flag says
    otherwise."""
    sync_bn: bool = False
    """Batch norm over the batches of all ranks; Ascend only. Otherwise each rank normalises its own batch, and
    statistics are averaged over ranks for evaluation and weight files."""
    val_while_train: bool = False
    """Evaluate during training, and keep the best weights."""
    val_interval: Count = 1
    """Epochs between two evaluations during training."""
    patience: Count | None = None
    """End the run after so many evaluations in a row without a better score (early stopping); those before
    unfreeze_epoch do not count. None: all epochs are trained."""
    log_interval: Count = 100
    """Steps between two lines of the training log."""
    tensorboard: bool = False
    """Write the records of metrics.jsonl as a TensorBoard event file, too, into ckpt_save_dir/tensorboard; needs
    tensorboardX."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Seed of the weights, the order of the images and their augmentation."""
    device_target: Literal["Ascend", "CPU", "GPU"] | None = None
    """Device to run on; None takes what the machine has."""
    native_ops: Literal["auto", "on", "off"] = "auto"
    """Train and evaluate on a CPU with our own C++ operators, compiled at first use: auto: where there is a compiler,
    in float32; on: or not at all; off: with MindSpore's alone. Off also leaves JPEG files to Pillow."""
    compile_cache: bool = True
    """Keep compiled graphs in the user's cache folder, and take from there what was compiled before; on a CPU, in graph
    mode."""
    auto: bool = False
    """Settle from the images and the machine what neither recipe nor command line gives of: image_resize, crop_pct,
    hflip, batch_size, lr, head_lr_factor, epoch_size, patience; val_fraction, which is 0.1 where there is no validation
    split; pretrained, which is True where published weights can be had."""
    resume: bool | Name = False
    """Go on with the run in ckpt_save_dir from its last saved state; or with that of the folder or file given."""
    resume_force: bool = False
    """Resume although the configuration or the data changed."""
    overwrite: bool = False
    """Delete the run that ckpt_save_dir holds and start afresh (validate: replace the report and the
    file of predictions), instead of refusing to. Of a run's config.yaml it is never taken."""

    dataset: Dataset = "imagenet"
    """Layout of data_dir: imagenet (or empty) is any SPLIT/CLASS/*.jpg image folders, or packs, tar or parquet files in
    their place; the others are binary files."""
    task: Name = "classification"
    """What the labels of the images mean: classification: each image has one class; multi_label: any number of
    labels; segmentation: each pixel has one, in a mask."""
    data_dir: Name = "./"
    """Folder of the dataset."""
    train_split: Text = "train"
    """Folder under data_dir to train on, or what names of tar or parquet files begin with; part of a binary dataset."""
    val_split: Text = "val"
    """Folder, files or part to evaluate on."""
    train_list: Text = ""
    """List of the images to train on, in place of the folder: a text file with a path and a label a line, CSV with
    path,label (and perhaps split and weight) in its first line, or JSON lines. Paths begin in its folder, or else in
    data_dir."""
    val_list: Text = ""
    """List of the images to evaluate on, likewise. Empty: the rows of train_list whose split is that, or the folder."""
    exclude_list: Text = ""
    """Images that training leaves out: a text file with a path a line. Paths begin in its folder, in data_dir, or in
    the current folder."""
    val_fraction: ShareBelow1 = 0.0
    """Share of the images that is kept for evaluation where there is no validation split: of each class, by a hash of
    each image's path. The images are those of train_list, of the folder train_split, or of DATA_DIR/CLASS. 0: none."""
    class_names: Text = ""
    """File of the classes' names in label order, for data whose labels are numbers: one name a line, or JSON. Names in
    the data have to be among them."""
    dataset_download: bool = False
    """Fetch cifar10, cifar100 or mnist into data_dir if it is not there."""
    ignore_index: Annotated[int, Field(ge=0, le=65_535)] = 255
    """task segmentation: value of pixels in masks that do not count, neither in training nor in evaluation."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an image file that cannot be read does, before the first epoch: error: ends the run; skip: it is left out,
    listed and counted."""
    image_digests: bool = False
    """Read all images before the first epoch, and compare them with the sha256 that each had when it was looked at; a
    file that was damaged in place, at the same size and time of change, counts as one that cannot be read."""
    num_parallel_workers: Count = 8
    """Processes that read and augment training images; never more than there are cores; 1 needs none."""
    shuffle: bool = True
    """Shuffle the training images every epoch."""
    sampler: Literal["balanced"] | None = None
    """Which training images an epoch has: None: each once; balanced: as many, but of every class equally many, those of
    small classes more than once."""
    num_samples: Count | None = None
    """Train on this many images an epoch, others each time when they are shuffled; None takes all."""
    batch_size: Count = 128
    """Images in a batch, on each rank."""
    drop_remainder: bool = True
    """Drop a last training batch that is not full (evaluation always sees every image). One of a single image is
    dropped in any case where the network leaves batch norm one pixel of it."""

    image_resize: ImageSize = 224
    """Height and width, in pixels, of the images that the network gets; one number where they are equal."""
    scale: AreaRange = (0.08, 1.0)
    """Random crop in training: its share of the image's area."""
    ratio: RatioRange = (0.75, 1.333)
    """Random crop in training: its aspect ratio."""
    crop_padding: Annotated[int, Field(ge=0)] | None = None
    """Random crop in training by shifts alone, as for CIFAR: of an image that covers image_resize, after so many black
    pixels were added on every side; takes the place of scale and ratio. None: they say what is cropped."""
    random_scale: RatioRange = (0.5, 2.0)
    """task segmentation, in training: range of factors that an image is scaled by, once it is fitted into image_resize,
    before a box of crop_size is cut out of it; takes the place of scale, ratio and crop_padding."""
    crop_size: ImageSize | None = None
    """task segmentation, in training: height and width, in pixels, of the box that is cut out of a scaled image, one
    number where they are equal; evaluation still sees whole images at image_resize. None: image_resize."""
    hflip: Share = 0.5
    """Probability of a horizontal flip."""
    vflip: Share = 0.0
    """Probability of a vertical flip."""
    color_jitter: ColorJitter | None = 0.4
    """Strength of random brightness, contrast, saturation (and hue, the fourth); unused with auto_augment."""
    interpolation: Interpolation = "bilinear"
    """How images are resized, in training and evaluation."""
    auto_augment: AutoAugment | None = None
    """Augmentation policy, as in mindcv: randaug-mM-nN-w0-mstdS-mmaxX-incI, autoaug, autoaugr or 3a (with
    -mstdS), augmix-mM-wW-dD-aA, trivialaugwide-mM; any section may be left out. As in mindcv 0.3.0, mstd has
    no effect (magnitudes vary by 0.5 in any case) and any inc, even inc0, turns increasing severities on."""
    aug_splits: int = 0
    """Augmentation splits of MindCV's JSD training; only 0 is supported."""
    re_prob: Share = 0.0
    """Probability of random erasing."""
    re_scale: AreaRange = (0.02, 0.33)
    """Random erasing: share of the area."""
    re_ratio: RatioRange = (0.3, 3.3)
    """Random erasing: aspect ratio."""
    re_value: EraseValue = 0
    """Random erasing: fill, after normalisation: one number, one for each channel, or random."""
    re_max_attempts: Count = 10
    """Random erasing: tries to fit the rectangle into the image before it is left as it is."""
    mean: Mean = (123.675, 116.28, 103.53)
    """Mean of each channel, on the scale 0 to 255, subtracted from the images."""
    std: Std = (58.395, 57.120000000000005, 57.375)
    """Standard deviation of each channel, on the scale 0 to 255, that the images are divided by."""
    crop_pct: ShareAbove0 = 0.875
    """Evaluation: share of the resized image that the centre crop keeps."""
    mixup: NotNegative = 0.0
    """Alpha of mixup's beta distribution; 0 turns it off."""
    cutmix: NotNegative = 0.0
    """Alpha of cutmix's beta distribution; 0 turns it off."""
    cutmix_prob: Share = 1.0
    """Probability that a batch is mixed, by mixup or cutmix."""
    aug_repeats: Natural = 0
    """Repeated augmentation: differently augmented copies of an image in a global batch; 0 or 1: off."""

    model: Name = "ghostnet_100"
    """Network, by its name in the registry; the default of MindCV, mobilenet_v2_035_224, is no Ghost network."""
    num_classes: Count | None = None
    """Classes that the network tells apart; None takes those of the dataset."""
    in_channels: Count = 3
    """Channels of the images: 3 for colour, 1 for grey."""
    drop_rate: ShareBelow1 | None = None
    """Dropout before the classifier; None takes the network's own."""
    drop_path_rate: ShareBelow1 | None = None
    """Stochastic depth, for networks that have it; None takes the network's own."""
    backbone: Text = ""
    """Network for segmentation: the classifier whose feature maps it reads, by its name in the registry. Empty: its
    usual one, ghostnet_100."""
    decoder_width: DecoderWidth = 1.0
    """Network for segmentation: factor on the channels of its decoder."""
    channels: LayerChannels = ()
    """Layers with fewer channels than the network gives them, LAYER=OUTxIN, of batch norms LAYER=N (0: as many), as
    `mindghost prune` writes them."""
    quantize_aware: Literal["int8"] | None = None
    """Train a network whose weights and maps have the values of 8-bit integers, from weights that are trained already;
    batch norms are folded into the layers before them. Files that are exported of it are int8. None: float."""
    upsampling: Literal["bilinear", "transposed"] = "bilinear"
    """Network for segmentation: how its decoder enlarges maps, bilinearly or by transposed convolutions, which are
    learnt (ghost_unet, plain_unet). The logits are always enlarged bilinearly."""
    init: Literal["mindcv", "pytorch"] = "mindcv"
    """How fresh weights are drawn, those of a fresh classifier, too: as MindCV starts such a network, or as PyTorch's
    layers start and with them timm's GhostNets, which is less than half as large."""
    pretrained: Pretrained = False
    """Start from the published weights of the network (of one for segmentation: of its backbone); or from a variant of
    them by its name, such as 910v2 of ghostnet_050."""
    ckpt_path: Text = ""
    """Weights to start from (train) or to evaluate (validate): a .ckpt or .safetensors file; validate takes
    a file that `mindghost export` wrote, too."""
    backbone_ckpt_path: Text = ""
    """Network for segmentation: weights to start its backbone from, a .ckpt or .safetensors file of that classifier or
    of another network for segmentation with that backbone; the rest is fresh."""
    teacher: Text = ""
    """Network to learn from (knowledge distillation), by its name here or in mindcv, or a .mindir file that takes
    batches of batch_size. It sees the same images. Empty: none."""
    teacher_ckpt_path: Text = ""
    """Weights of the teacher: a .ckpt or .safetensors file; empty takes the published ones of a Ghost network."""
    resume_opt: bool = False
    """Load the optimizer's moments from ckpt_path, too (a run_state.ckpt, or a file of MindCV's trainer)."""
    freeze_backbone: bool = False
    """Train the classifier alone (for segmentation: all but the backbone); everything before it, batch-norm statistics
    included, stays as it is: that of ckpt_path, of backbone_ckpt_path or of the published weights."""
    freeze_stages: Natural = 0
    """Keep the first stages of the network as they are, batch-norm statistics included: 1: the stem, 2: and all up to
    its next feature map, and so on; all of them are what freeze_backbone keeps."""
    unfreeze_epoch: Annotated[int, Field(ge=2, le=INT_MAX)] | None = None
    """Epoch, counted from 1, from which on everything is trained; before, what freeze_stages leaves, or without it the
    classifier alone. The optimizer starts afresh then, its schedule goes on. None: what is frozen stays so."""
    keep_checkpoint_max: Count = 10
    """Epoch checkpoints to keep (best and last are kept besides)."""
    ckpt_save_dir: Name = "./ckpt"
    """Folder for checkpoints, logs, metrics and the resolved configuration."""
    ckpt_save_interval: Count = 1
    """Epochs between two checkpoints."""
    ckpt_save_interval_steps: Count | None = None
    """Steps between two saved run states inside an epoch; None saves them at the ends of epochs only."""
    ckpt_save_policy: Literal["latest_k", "top_k"] = "latest_k"
    """Which epoch checkpoints to keep: the latest ones, or those of the highest accuracy."""
    epoch_size: Count = 90
    """Epochs to train."""
    dataset_sink_mode: bool = True
    """Feed the data through the device's queue; a CPU has none and goes without."""
    ema: bool = False
    """Keep an exponential moving average of the weights; it is what is evaluated and saved."""
    ema_decay: ShareBelow1 = 0.9999
    """Decay of that average, a step."""
    clip_grad: bool = False
    """Clip the gradients to a global norm of clip_value."""
    clip_value: Positive = 15.0
    """Norm that clip_grad clips to."""
    layer_decay: ShareAbove0 | None = None
    """Layer-wise decay of the learning rate, as in timm: the classifier learns at the schedule's rate, the block before
    it at layer_decay times that, the one before at layer_decay^2, and so on down to the stem."""
    head_lr_factor: Positive = 1.0
    """Rate of the classifier (for segmentation: of decoder and classifier), as a multiple of the schedule's."""
    backbone_lr_factor: Positive = 1.0
    """Rate of everything before the classifier, as a multiple of the schedule's; layer_decay multiplies with it."""
    gradient_accumulation_steps: Count = 1
    """Batches whose gradients are averaged into one update."""

    opt: Optimizer = "adam"
    """Optimizer; rmsproptf is TensorFlow's RMSprop, with eps inside the root."""
    momentum: Share = 0.9
    """Momentum of sgd, momentum, rmsprop and rmsproptf."""
    weight_decay: NotNegative = 1e-6
    """Strength of the weight decay."""
    use_nesterov: bool = False
    """Nesterov's momentum, for sgd, momentum and adam."""
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = "disable"
    """Parameters without weight decay: none (disable), MindSpore's choice (auto), or norms and biases."""
    eps: Positive = 1e-10
    """Term added to the denominator by adam, adamw, rmsprop, rmsproptf, lamb and nadam."""

    scheduler: Scheduler = "cosine_decay"
    """Course of the learning rate after the warm-up; poly falls to 0 with (1 - share of the run) ^ decay_rate."""
    lr: Positive = 0.001
    """Highest learning rate, for a global batch of lr_reference_batch images."""
    lr_reference_batch: Positive | None = None
    """Global batch that lr is meant for: the rate used is lr * batch_size * ranks *
    gradient_accumulation_steps / lr_reference_batch. None uses lr as it stands."""
    min_lr: NotNegative = 1e-6
    """Lowest learning rate of cosine_decay, one_cycle and cyclic; never scaled."""
    warmup_epochs: Natural = 3
    """Epochs over which the rate rises to lr; fewer than epoch_size."""
    warmup_factor: NotNegative = 0.0
    """The warm-up starts at this factor of lr."""
    decay_epochs: DecayEpochs = 100
    """cosine_decay: epochs until min_lr; step_decay: epochs between two drops, even a fraction like 2.4."""
    decay_rate: Positive = 0.9
    """Factor of each drop of exponential_decay, step_decay and multi_step_decay; power of poly."""
    multi_step_decay_milestones: Milestones = (30, 60, 90)
    """Epochs of the drops of multi_step_decay, counted from the end of the warm-up."""
    lr_epoch_stair: bool = False
    """Change the rate once an epoch instead of every step."""
    num_cycles: Count = 1
    """Cycles of cosine_decay and cyclic."""
    cycle_decay: Positive = 1.0
    """Factor on the highest rate of each further cycle of cosine_decay."""

    loss: Literal["CE", "BCE"] = "CE"
    """Cross entropy, or binary cross entropy for each class; task multi_label always takes the latter."""
    class_weights: ClassWeights | None = None
    """How much each class counts in the training loss: numbers in label order, a file of them (JSON list, JSON map of
    names, text or CSV lines of name and number), or balanced: images / (classes x images of the class). None: all
    alike."""
    dice_weight: NotNegative = 0.0
    """task segmentation: this times the Dice loss of a batch is added to its cross entropy."""
    ohem: ShareAbove0 | None = None
    """task segmentation: share of a batch's pixels whose cross entropy counts, those with the highest (online hard
    example mining). None: all."""
    label_smoothing: ShareBelow1 = 0.0
    """Share of a label that is spread over all classes."""
    distill_alpha: Share = 0.5
    """Share of the teacher in the loss: (1 - alpha) x loss + alpha x T^2 x KL(teacher || network)."""
    distill_temperature: Positive = 1.0
    """Temperature T that both logits are divided by before that divergence."""
    aux_factor: NotNegative = 0.0
    """Weight of auxiliary logits; only 0 is supported, no network here has any."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the losses of a batch become one number."""

    amp_level: AmpLevel = "O0"
    """Precision in training: O0 float32, O1 float16 for amp_cast_list, O2 float16 but norms, O3 float16."""
    amp_type: Literal["float16", "bfloat16"] = "float16"
    """What amp_level has in place of float32. bfloat16, for O2 on a CPU with AMX: the products of convolutions, whose
    sums and all else are in float32."""
    val_amp_level: EvaluationLevel = "O0"
    """Precision in evaluation, predict and embed, as in amp_level. bfloat16, on a CPU with AMX: the products of 1x1
    convolutions, in networks that run as one plan."""
    amp_cast_list: CastList | None = None
    """Cells of mindspore.nn that O1 runs in float16 and O2 keeps in float32; None takes mindcv's lists."""
    loss_scale_type: LossScaleType = "fixed"
    """How loss_scale changes: fixed: never; dynamic: with the overflows; auto: as amp_level has it."""
    loss_scale: Annotated[float, Field(ge=1)] = 1.0
    """Factor on the loss that keeps small float16 gradients from vanishing; the first one if dynamic."""
    drop_overflow_update: bool = False
    """Skip updates whose gradients overflow; dynamic needs it."""
    eval_shuffle: bool = False
    """Shuffle the images in evaluation."""
    eval_mirror: bool = False
    """Evaluate each image and its mirror image, and count the mean of the two logits; takes twice the time."""
    report: Text = ""
    """Folder for the report of validate: scores of each class, confusion matrix, worst mistakes, one HTML page of all;
    needs matplotlib. Empty: none."""
    predictions: Text = ""
    """File for what validate finds of each image: path, true class, likeliest classes, probabilities, loss; .csv,
    .jsonl (or .json), or .parquet, which needs pyarrow. Empty: none."""


def grouped() -> dict[str, list[str]]:
    """Title of each group of keys -> the keys, in the order of `--help` and of `Config.to_yaml`."""
    groups: dict[str, list[str]] = {}
    for key in Keys.model_fields:
        if key in _GROUPS:
            keys = groups.setdefault(_GROUPS[key], [])
        keys.append(key)
    return groups
