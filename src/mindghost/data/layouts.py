"""What lies in a place -> samples: which layout it is, each a module beside this one."""

from __future__ import annotations

from pathlib import Path

from ..files import paths
from . import folders, jpeg, parquet, places
from . import pack as packs
from . import tar as tar_shards
from .imagenet import downloaded
from .samples import Samples


def opened(data_dir: Path, split: str, decoder: jpeg.Decoder | None = None) -> Samples | None:
    """The samples of a split below `data_dir`, in shards, a pack or folders; None where there is no such thing.

    Raises UserError as the layouts do.
    """
    if shards := places.shards(data_dir, split):
        is_tar = shards.kind == places.TAR
        return tar_shards.open_tar(shards, decoder) if is_tar else parquet.open_parquet(shards, decoder)
    root = places.folder(data_dir, split)
    if not paths.is_folder(root):
        return None
    if packs.is_pack(root):
        return packs.open_pack(root, decoder)
    if downloaded.is_flat(root):
        return downloaded.open_flat(root, decoder)
    return folders.open_folders(root, decoder, mixed=not split)
