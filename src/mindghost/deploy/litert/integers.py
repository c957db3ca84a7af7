"""A network that was trained for integers, as a LiteRT file that computes in them.

The converter is given the network in numbers, of rounded weights (`plain`). In what it makes, the maps that the
training rounds are found again by their values (`maps`), and its weights by theirs. Then the operators between such
maps get the integers themselves, with the training's own steps (`rewriting`). What LiteRT has no operator of integers
for stays in numbers.
"""

from __future__ import annotations

from . import maps, tables
from .plain import Plain
from .rewriting import Rewriting


def as_integers(graph: bytes, source: Plain) -> bytes:
    """The file that computes in integers, of what the converter has made of the plain one.

    Raises UserError where a map that is rounded cannot be found in it.
    """
    wanted = maps.found(graph, source)
    model = tables.read(graph)
    tables.take_in(model, graph)
    Rewriting(model, source.weights, wanted).run()
    return tables.written(model, len(graph))
