"""What ranks must have alike is compared before they wait for each other."""

import pytest

from mindghost.errors import UserError
from mindghost.parallel import replicas
from mindghost.parallel.ranks import ALONE, Ranks
from tests.helpers.two_ranks import both


def check(ranks: Ranks, *facts: dict[str, str]) -> str:
    """What a rank is told of the facts that each has."""
    try:
        replicas.check_told(ranks, facts[ranks.rank], "do this")
    except UserError as error:
        return str(error)
    return ""


def test_ranks_with_equal_facts_go_on():
    facts = {"lr": "0.1", "a b": "é\n"}
    assert both(lambda ranks: check(ranks, facts, dict(reversed(facts.items())))) == ["", ""]
    assert check(ALONE, {"lr": "0.1"}) == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": "1", "lr": "0.2"}, "lr: rank 0 has 0.1, rank 1 has 0.2; all ranks need the same: do this"),
        ({"seed": "1"}, "lr: rank 0 has 0.1, rank 1 has nothing; all ranks need the same: do this"),
        (
            {"seed": "1", "lr": "0.1", "more": "x"},
            "more: rank 0 has nothing, rank 1 has x; all ranks need the same: do this",
        ),
    ],
)
def test_all_ranks_hear_what_differs(other, said):
    assert both(lambda ranks: check(ranks, {"seed": "1", "lr": "0.1"}, other)) == [said, said]
