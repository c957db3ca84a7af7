"""Vectors: whether they can be compared at all, and with which others."""

from dataclasses import replace

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.search import vectors as checks
from mindghost.search.vectors import Origin, Vectors
from tests.helpers.vectors import ORIGIN, unit, vectors


def test_what_is_not_known_of_files_is_filled_in():
    found = Vectors(unit(3), np.array(["a", "b", "c"]), np.zeros(3, np.int32))
    assert found.sizes.tolist() == [-1, -1, -1]
    assert found.times.tolist() == [0, 0, 0]
    assert not found.digests.any()
    assert (len(found), found.dimensions, found.class_of(0)) == (3, 16, None)


def test_some_of_them():
    found = vectors(5).take(np.array([4, 0]))
    assert found.paths.tolist() == ["D/00004.jpg", "D/00000.jpg"]
    np.testing.assert_array_equal(found.vectors, unit(5)[[4, 0]])
    assert found.class_of(1) == "ant"


def test_labels_follow_the_names():
    found = replace(vectors(4), labels=np.array([0, 1, -1, 0], np.int32)).relabelled(["cat", "bee", "ant"])
    assert found.labels.tolist() == [2, 1, -1, 2]
    assert replace(vectors(2), labels=np.array([0, 1], np.int32)).relabelled(["bee"]).labels.tolist() == [-1, 0]


def test_halves_are_near_enough_to_length_1():
    """Rounded to float16 they are not of length 1, and taken; longer ones by two hundredths are refused."""
    halves = unit(200, 1280).astype(np.float16)
    assert 0 < np.abs(np.linalg.norm(halves.astype(np.float64), axis=1) - 1).max() < 1e-2
    assert checks.check(halves, "x") is None
    assert checks.check(np.zeros((2, 4), np.float32), "x") is None
    with pytest.raises(UserError, match=r"x: its vector 0 has the length 1\.02"):
        checks.check((halves.astype(np.float32) * np.float32(1.02)).astype(np.float16), "x")


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.nan, "x.npz: its vector 2 is not finite (NaN or infinity); embed"),
        (-np.inf, "x.npz: its vector 2 is not finite (NaN or infinity); embed"),
        (3.0, "x.npz: its vector 2 has the length 3.1"),
    ],
)
def test_vectors_that_cannot_be_compared(value, expected):
    found = unit(4)
    found[2, 5] = value
    with pytest.raises(UserError) as caught:
        checks.check(found, "x.npz")
    assert str(caught.value).startswith(expected)


def test_one_network_is_itself():
    assert ORIGIN.difference(ORIGIN) == ""
    # As it comes back from a file; words about the numbers may change.
    again = Origin.of_record(ORIGIN.record(), "x")
    worded = replace(ORIGIN, preprocessing={**ORIGIN.preprocessing, "resize_rule": "in other words"})
    other = replace(ORIGIN, preprocessing={**ORIGIN.preprocessing, "resize_rule": "in words"})
    assert ORIGIN.difference(again) == worded.difference(other) == ""
    checks.check_same(None, None, "a", "b")


@pytest.mark.fault("vectors", "clean error", once=True)
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"model": "ghostnet_100"},
            "b: not of the network of a: model ghostnet_050 and ghostnet_100; embed the images",
        ),
        ({"weights": "cd" * 32}, f"b: not of the network of a: weights {'ab' * 30} and {'cd' * 30}; "),
        ({"precision": "int8"}, "b: not of the network of a: precision float32 and int8; "),
        (
            {"preprocessing": {**ORIGIN.preprocessing, "resize": [64, 64]}},
            "preprocessing resize: [40, 40] and [64, 64]",
        ),
    ],
)
def test_another_network_is_named(keys, expected):
    with pytest.raises(UserError) as caught:
        checks.check_same(ORIGIN, replace(ORIGIN, **keys), "a", "b")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_one_that_does_not_say_its_network_is_another():
    with pytest.raises(UserError, match=r"^b: does not say which network made its vectors, and a does; "):
        checks.check_same(ORIGIN, None, "a", "b")
    with pytest.raises(UserError, match=r"^a: does not say which network made its vectors, and b does; "):
        checks.check_same(None, ORIGIN, "a", "b")


@pytest.mark.fault("vectors", "clean error", once=True)
@pytest.mark.parametrize("value", ["x", [], {"model": "x"}, {**ORIGIN.record(), "weights": 5}])
def test_a_network_that_is_none(value):
    with pytest.raises(UserError, match=r"^x: does not say which network made its vectors"):
        Origin.of_record(value, "x")


def test_every_half_is_widened_as_numpy_does_it():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    expected = finite.astype(np.float32)
    np.testing.assert_array_equal(checks.widened(finite).view(np.uint32), expected.view(np.uint32))
    # Not aligned, as in a mapped file, and with rows left out.
    buffer = np.frombuffer(b"?" + finite.tobytes(), np.float16, len(finite), 1)
    np.testing.assert_array_equal(checks.widened(buffer), expected)
    np.testing.assert_array_equal(checks.widened(finite.reshape(-1, 2)[::3]), expected.reshape(-1, 2)[::3])
    np.testing.assert_array_equal(checks.widened(halves), halves.astype(np.float32))
