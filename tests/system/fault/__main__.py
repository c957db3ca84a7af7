"""python -m tests.system.fault: groups of faults outside of pytest."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

from mindghost.process.signals import importing

with importing():
    from tests.system.fault import folders, images, saves, weights  # noqa: F401  (their groups)
from tests.system.fault.harness import GROUPS, as_json, run_group, table


def main() -> int:
    parser = ArgumentParser(
        prog="python -m tests.system.fault", description="Groups of faults, and what comes of them."
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; without any: all")
    parser.add_argument("--seed", type=int, default=7, help="of all random choices (default: 7)")
    parser.add_argument("--share", default="0/1", metavar="I/N", help="every N-th case, from case I on")
    parser.add_argument("--few", action="store_true", help="three cases of each group, or some more")
    parser.add_argument("--stock", action="store_true", help="by MindSpore's and MindCV's own functions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and failures to FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    share, shares = map(int, arguments.share.split("/"))
    chosen = arguments.groups or list(GROUPS)
    parts = {name: (1, GROUPS[name].least // 3) if arguments.few else (share, shares) for name in chosen}
    results = {name: run_group(GROUPS[name], arguments.seed, *parts[name], arguments.stock) for name in chosen}
    facts = as_json(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1))
    print(table(facts))
    for name, result in results.items():
        for failure in result.failures[:20]:
            print(f"{name}: {failure}")
    return int(any(result.failures for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
