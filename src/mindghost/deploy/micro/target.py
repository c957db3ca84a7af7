"""What a file for microcontrollers is held to."""

from __future__ import annotations

from dataclasses import dataclass

# In Vela's words; its own choice of clock and memories goes with each (`--system-config`, `--memory-mode`).
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)


@dataclass(frozen=True)
class Target:
    """A microcontroller.

    Attributes:
        flash: bytes for the file.
        ram: bytes for tflite-micro's arena.
        accelerator: of ACCELERATORS, whose time is estimated.
    """

    flash: int = 1_000_000
    ram: int = 512_000
    accelerator: str = "ethos-u55-128"
