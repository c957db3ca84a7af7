"""Files that an export may replace: those that one has written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..files import intact, outputs, paths
from ..inference.formats import ENTRY, FORMATS
from ..inference.formats.ncnn_file import NCNN

# The version, in every description; as XML has it, too.
_VERSIONS = (b'"ghostnet": "', b"&quot;ghostnet&quot;: &quot;")
# Files that hold no description; their digest beside them says whose they are.
_UNDESCRIBED = {NCNN.suffix, *(suffix for form in FORMATS.values() for suffix in form.others)}


def check_replaceable(files: Iterable[Path], overwrite: bool, source: Path) -> None:
    """Raise UserError where files that are to be written have names of others than exports, and of the source.

    Args:
        files: exported ones, and the descriptions beside them.
        overwrite: replace others, too, but the source.
        source: what they are made of.
    """
    read = outputs.identities([source])
    for file in filter(paths.exists, files):

        def is_own(content: bytes, file: Path = file) -> bool:
            if file.suffix == ".json":
                return outputs.json_with(ENTRY, "source")(content)
            described = file.suffix in _UNDESCRIBED or any(version in content for version in _VERSIONS)
            return described and intact.has_digest_of(file, content)

        outputs.Output(file, "--out", is_own, overwrite, read).check()
