"""Vectors of made-up images, and what is nearest among them by NumPy alone."""

import json
from pathlib import Path

import numpy as np

from mindghost.search.vectors import Origin, Vectors

ORIGIN = Origin("ghostnet_050", "ab" * 32, "float32", {"resize": [40, 40], "mean": [1.5, 2.5, 3.5], "alpha": "dropped"})


def unit(count: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors of length 1, float32, in clusters as those of images are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 20), dimensions))
    found = centres[rng.integers(len(centres), size=count)] + 0.5 * rng.standard_normal((count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def vectors(count: int, dimensions: int = 16, seed: int = 0, start: int = 0, **keys) -> Vectors:
    paths = np.array([f"D/{number:05}.jpg" for number in range(start, start + count)], str)
    labels = np.arange(count, dtype=np.int32) % 2
    return Vectors(
        unit(count, dimensions, seed), paths, labels, **{"classes": ("ant", "bee"), "origin": ORIGIN, **keys}
    )


def brute_force(queries: np.ndarray, found: np.ndarray, count: int) -> list[list[int]]:
    """Rows of the nearest, the nearest first."""
    scores = queries.astype(np.float64) @ found.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :count].tolist()


def recall(found: np.ndarray, expected: list[list[int]]) -> float:
    """The share of those expected that were found."""
    pairs = [(set(map(int, line)), set(wanted)) for line, wanted in zip(found, expected, strict=True)]
    return float(np.mean([len(line & wanted) / len(wanted) for line, wanted in pairs]))


def changed_arrays(path: Path, target: Path, **arrays) -> Path:
    """A copy of an .npz file with other arrays; None leaves one out."""
    with np.load(path) as found:
        kept = {name: found[name] for name in found.files}
    with open(target, "wb") as file:
        np.savez(file, **{name: array for name, array in {**kept, **arrays}.items() if array is not None})
    return target


def changed_facts(path: Path, target: Path, **facts) -> Path:
    """A copy of an .npz file that says other things of itself."""
    with np.load(path) as found:
        said = json.loads(found["facts"].tobytes())
    text = json.dumps({**said, **facts}).encode()
    return changed_arrays(path, target, facts=np.frombuffer(text, np.uint8))
