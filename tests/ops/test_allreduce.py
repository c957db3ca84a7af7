"""Sums over ranks; those that real ranks make are in tests/parallel."""

from pathlib import Path

from mindspore import nn

from mindghost.ops import allreduce
from tests.helpers.two_ranks import both


def test_where_one_rank_lacks_our_operators_none_waits_for_it():
    libraries = [Path("operators.so"), None]
    assert both(lambda ranks: allreduce.rank_sum(nn.Dense(2, 3), libraries[ranks.rank], ranks)) == [None, None]
