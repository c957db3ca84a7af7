"""What `mkdocs` runs while it builds the site: it writes the page of configuration keys from the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# The site can be built where the package is not installed.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from mindghost.config import Config, yaml_file
from mindghost.config.types import expected

INTRODUCTION = """# Configuration keys

A run's configuration is made of the defaults below, then a YAML recipe (`-c`), then the command line. Every key is a
flag of `mindghost train` and `mindghost validate`: `--lr 0.1`. The keys are MindCV's, and a few of ours. A list is
written `--scale 0.08 1.0`, `--scale 0.08,1.0` or `--scale "[0.08, 1.0]"`; `--distribute` alone means True.

This page is made from `src/mindghost/config/keys.py` when the site is built.
"""
HEADING = "| key | meaning | values |\n| --- | --- | --- |\n"


def keys_page() -> str:
    """The page in Markdown: for each group of keys a table of their meanings, values and defaults."""
    parts = [INTRODUCTION]
    # Every key stands under the title of its group there.
    for group in Config().to_yaml().strip().split("\n\n"):
        title, *lines = group.splitlines()
        keys = [line.partition(":")[0] for line in lines]
        parts.append(f"## {title.removeprefix('# ')}\n\n{HEADING}" + "\n".join(map(_row, keys)))
    return "\n\n".join(parts) + "\n"


def _row(key: str) -> str:
    field = Config.model_fields[key]
    default = "None" if field.default is None else yaml_file.dump(field.default)
    meaning = " ".join((field.description or "").split())
    values = expected(field.annotation, field.metadata)
    return f"| `{key}` | {_cell(meaning)} | {_cell(values)}; default: `{default}` |"


def _cell(text: str) -> str:
    """Text in which nothing is taken for markup."""
    return re.sub(r"([\\|*_\[\]])", r"\\\1", text.replace("<", "&lt;"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those that lie in the folder."""
    files.append(File.generated(config, "keys.md", content=keys_page()))
    return files
