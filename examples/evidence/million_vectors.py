"""Build an index of a million vectors and ask it, exactly and by a graph: seconds, memory, recall@10.

The vectors are made up as those of a network are spread: groups of images that are alike, whose vectors lie near a
surface of few dimensions. Queries are drawn as the vectors are, and none of them is one. The last line is JSON.

    python examples/evidence/million_vectors.py --count 1000000 --folder /data/scratch
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mindghost.process.display import say
from mindghost.search import exact, vector_file
from mindghost.search.graph import forget
from mindghost.search.index import Index, build
from mindghost.search.vectors import Vectors

BLOCK = 20_000


class Spread:
    """Draws vectors: a group's centre and what makes an image differ from it, in few dimensions, and noise in all."""

    def __init__(self, dimensions: int, inner: int, groups: int) -> None:
        rng = np.random.default_rng(0)
        self.surface = rng.standard_normal((inner, dimensions), np.float32) / np.sqrt(inner)
        self.centres = rng.standard_normal((groups, inner), np.float32)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        inside = self.centres[rng.integers(len(self.centres), size=count)]
        inside = inside + 0.6 * rng.standard_normal(inside.shape, np.float32)
        # As behind a ReLU, no number is negative: all vectors point to one side.
        found = np.maximum(inside @ self.surface + 0.1 * rng.standard_normal((count, self.surface.shape[1])), 0)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def made(count: int, spread: Spread, dtype: str, folder: Path) -> Path:
    """A file of vectors, block by block: they never are in memory as a whole."""
    raw = np.lib.format.open_memmap(folder / "raw.npy", "w+", dtype, (count, spread.surface.shape[1]))
    rng = np.random.default_rng(1)
    for start in range(0, count, BLOCK):
        raw[start : start + BLOCK] = spread.draw(min(BLOCK, count - start), rng)
    names = np.array([f"images/{number:08}.jpg" for number in range(count)])
    file = folder / "vectors.npz"
    with open(file, "wb") as written:
        for piece in vector_file.encode(file, Vectors(raw, names, np.full(count, -1, np.int32))):
            written.write(piece)
    del raw
    (folder / "raw.npy").unlink()
    return file


def timed(facts: dict, name: str, function, *arguments):
    """What the function returns. Its seconds, those of CPU time, and the most megabytes so far go into the facts."""
    begun, worked = time.perf_counter(), time.process_time()
    found = function(*arguments)
    facts[f"{name}_seconds"] = round(time.perf_counter() - begun, 3)
    facts[f"{name}_cpu_seconds"] = round(time.process_time() - worked, 3)
    facts[f"{name}_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    took = f"{facts[f'{name}_seconds']} s ({facts[f'{name}_cpu_seconds']} s of CPU)"
    say(f"{name}: {took}, {facts[f'{name}_peak_mb']} MB at most", sys.stderr)
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict:
    spread = Spread(options.dimensions, options.inner, max(1, options.count // 50))
    facts = {"count": options.count, "dimensions": options.dimensions, "dtype": options.dtype}
    file = timed(facts, "made", made, options.count, spread, options.dtype, folder)
    vectors = timed(facts, "read", vector_file.read, file)
    index = timed(facts, "build", build, folder / "i.index", vectors)
    facts["index_mb"] = round((folder / "i.index").stat().st_size / 1e6)
    timed(facts, "open", Index.open, folder / "i.index")
    graph = timed(facts, "graph", index.graph)
    facts["graph_vectors"] = len(graph)
    del graph
    queries = spread.draw(options.queries, np.random.default_rng(2))
    timed(facts, "exact_one_query", exact.nearest, queries[:1], index.content.vectors, 10)
    scores, rows = timed(facts, "exact_all_queries", exact.nearest, queries, index.content.vectors, 10)
    timed(facts, "approximate_one_query", index.nearest, queries[:1], 10, True)
    found_scores, found = timed(facts, "approximate_all_queries", index.nearest, queries, 10, True)
    hits = [len(set(line) & set(wanted)) / 10 for line, wanted in zip(found.tolist(), rows.tolist(), strict=True)]
    forget(index.state)
    facts["queries"] = options.queries
    facts["recall_at_10"] = round(float(np.mean(hits)), 4)
    facts["largest_loss_of_score"] = float((scores - found_scores).max())
    return facts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="vectors (1,000,000)")
    parser.add_argument("--dimensions", type=int, default=1280, help="numbers of each (1280, as GhostNet's)")
    parser.add_argument("--inner", type=int, default=64, help="dimensions of the surface that they lie near (64)")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float16", help="of the file (float16)")
    parser.add_argument("--queries", type=int, default=200, help="how many are asked (200)")
    parser.add_argument("--folder", type=Path, default=None, help="for files, gigabytes of them (that of the system)")
    place = Path(tempfile.mkdtemp(prefix="million-", dir=(given := parser.parse_args()).folder))
    try:
        print(json.dumps(measure(given, place)))
    finally:
        shutil.rmtree(place)
