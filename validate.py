"""Evaluate a weight file or an exported file: `python validate.py --ckpt_path W --data_dir D [-c CONFIG]` (--help)."""

import sys

from mindghost.cli.command import run_command
from mindghost.config import load
from mindghost.files.json_text import dumps
from mindghost.inference.artifact import said
from mindghost.process import launch
from mindghost.process.display import say
from mindghost.process.signals import importing

PROG = "validate.py"
DESCRIPTION = (
    "Evaluate a weight file, or a .onnx or .mindir file, on the validation images; the last line is one JSON object."
)


def main() -> None:
    """Command line -> configuration -> evaluation -> a sentence and, as the last line, one JSON object."""
    config = load(None, prog=PROG, description=DESCRIPTION, weights=said)
    # After the configuration is known to be good: importing MindSpore takes seconds.
    with importing():
        from mindghost.evaluate.validate import validate

    result = validate(config)
    if launch.detect().rank > 0:
        return
    top_5 = "" if result["top_5"] is None else f", top-5 {result['top_5']:.2f} %"
    accuracy = f"top-1 {result['top_1']:.2f} %{top_5}, loss {result['loss']:.4f}"
    say(f"{result['model']}: {accuracy} over {result['num_samples']:,} images")
    print(dumps(result))


if __name__ == "__main__":
    sys.exit(run_command(PROG, main))
