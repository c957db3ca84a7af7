"""Pack images into MindRecord shards, which train.py and validate.py read as their --data_dir.

The images are those of class folders, of tar or parquet files, or of lists. Few large files instead of many small ones:
for disks over a network, and for copying. --short_side N scales images down on the way (about 1.15 times the size that
the network is given loses little): reading them takes a fraction of the time. --uncompressed keeps pixels, for which
nothing is decoded any more: with --short_side 256, some 0.25 MB an image. Each shard is read again before it counts. A
command that was ended goes on when it is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.arguments import Parser, input_file, input_folder, number, output_folder
from ..data.places import is_there
from ..errors import UserError
from ..process.display import say
from ..process.signals import importing

if TYPE_CHECKING:
    from ..data.samples import FileSamples

PROG = "mindghost pack"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    data_dir = input_folder("give one that has train/CLASS/*.jpg")
    parser.add_argument(
        "--data_dir",
        type=data_dir,
        required=True,
        metavar="D",
        help="folder of D/SPLIT/CLASS/*.jpg, or of tar or parquet files",
    )
    listed = input_file("give a list of images and labels")
    parser.add_argument(
        "--train_list", type=listed, metavar="L", help="list of the images to pack as train, not D/train"
    )
    parser.add_argument("--val_list", type=listed, metavar="L", help="list of those of val")
    parser.add_argument(
        "--out", type=output_folder, required=True, metavar="P", help="folder of the pack: P/SPLIT/*.mindrecord"
    )
    parser.add_argument(
        "--splits", default="train,val", metavar="A,B", help="splits to pack (train,val, as far as they are there)"
    )
    parser.add_argument(
        "--short_side", type=number(int, 1, 10_000), metavar="N", help="pixels of the shorter side (files as they are)"
    )
    parser.add_argument("--quality", type=number(int, 1, 100), default=95, metavar="Q", help="of scaled JPEGs (95)")
    parser.add_argument("--uncompressed", action="store_true", help="pixels in place of image files: large, and fast")
    parser.add_argument(
        "--shard_mb", type=number(int, 1, 100_000), default=256, metavar="MB", help="image files in a shard (256)"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin afresh, whatever pack is in P")
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line says."""
    args = make_parser().parse_args(arguments)
    args.splits = [split for split in args.splits.split(",") if split]
    return args


def _list_of(args: argparse.Namespace, split: str) -> FileSamples | None:
    """The images that a list has for a split; None where none is given."""
    given = {key: str(getattr(args, key) or "") for key in ("train_list", "val_list")}
    if split not in ("train", "val") or not any(given.values()):
        return None
    from ..config import Config
    from ..data import lists, splits
    from ..data.lists.labels import Known

    source = splits.source(Config(data_dir=str(args.data_dir), **given), split)
    if not source.key:
        return None
    options = lists.Options(source.key, args.data_dir, split, "--splits", Known())
    samples = lists.open_list(source.place, options)
    if samples.weights is not None:
        raise UserError(f"--{source.key}: {source.place}: a pack keeps no weights; leave the column out")
    return samples


def main(arguments: Sequence[str]) -> None:
    """Pack split after split."""
    args = parse(arguments)
    listed = {split: _list_of(args, split) for split in args.splits}
    wanted = [split for split in args.splits if listed[split] or is_there(args.data_dir, split)]
    if not wanted:
        raise UserError(f"--splits: {args.data_dir} holds none of {', '.join(args.splits)}; name its folders")
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..data.pack import writer as pack_writer

    options = pack_writer.Options(args.short_side, args.quality, args.shard_mb << 20, args.uncompressed)
    for split in wanted:
        images = listed[split] or args.data_dir / split
        packed = pack_writer.pack(images, args.out / split, options, args.overwrite)
        say(
            f"{args.out / split}: {packed.images:,} images in {packed.shards} shard(s), {packed.made} made now; "
            f"{packed.bytes_before / 1e6:,.1f} MB of files, {packed.bytes_after / 1e6:,.1f} MB of shards"
        )
