"""Commands one after the other in one process, with `short.py`'s network: `python tests/helpers/walk.py COMMANDS.json`.

The file holds a list of command lines, of `mindghost` or of a Python program.
The exit status of each is a line `<STATUS>` on standard output.
"""

import json
import runpy
import sys
from pathlib import Path

from mindghost.cli.main import main as command
from mindghost.process import utf8
from mindghost.process.signals import importing
from tests.helpers.short import stages

if __name__ == "__main__":
    utf8.insist()
    with importing():
        from mindghost.models import ghostnet
    ghostnet.STAGES = stages()
    for line in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        arguments, sys.argv = sys.argv, line
        try:
            if line[0] == "mindghost":
                command()
            else:
                runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            print(f"<{end.code}>", flush=True)
        sys.argv = arguments
