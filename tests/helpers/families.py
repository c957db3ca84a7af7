"""The networks of the registry as parameters of a test: one of each structure in quick runs."""

import re

import pytest


def one_of_each(names: list[str]) -> list:
    """Names as parameters: of those that differ in their width alone, all but the first are slow.

    So are the plain decoders, whose parts the others have.
    """
    params, seen = [], set()
    for name in names:
        structure = re.sub(r"_[0-9]{3}$", "", name)
        alike = structure in seen or name.startswith("plain_")
        params.append(pytest.param(name, marks=pytest.mark.slow if alike else []))
        seen.add(structure)
    return params
