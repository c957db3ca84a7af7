"""Where the checkout keeps what the tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
RECIPE = ROOT / "configs" / "ghostnet" / "ghostnet_050_cpu.yaml"
