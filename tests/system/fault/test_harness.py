"""What the harness makes of calls that end in every way there is."""

import os
import random
import signal
import time
from types import SimpleNamespace

import pytest

from mindghost.errors import UserError
from tests.helpers.fault_counts import faults_of
from tests.system.fault.harness import Case, Group, as_json, attempt, run_group, table


def raises(error: Exception):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: None, ("ok", "")),
        (raises(UserError("x.ckpt: damaged")), ("clean error", "x.ckpt: damaged")),
        (raises(UserError("x.ckpt:\ndamaged")), ("failure", "several lines")),
        (raises(UserError("damaged")), ("failure", "'x.ckpt' is not in")),
        (raises(RuntimeError("x.ckpt")), ("failure", "RuntimeError: x.ckpt")),
        (raises(AssertionError("not equal")), ("failure", "a wrong result: not equal")),
        (raises(KeyboardInterrupt()), ("failure", "KeyboardInterrupt")),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), ("failure", "killed by SIGSEGV")),
        (lambda: os._exit(0), ("failure", "ended with status 0 without a word")),
        (lambda: time.sleep(60), ("failure", "no end after 1 seconds")),
    ],
)
def test_outcomes(call, expected):
    outcome, reason = attempt(call, names="x.ckpt", seconds=1)
    assert outcome == expected[0]
    assert expected[1] in reason


def test_a_stock_function_may_raise_anything():
    assert attempt(raises(RuntimeError("x")), stock=True) == ("clean error", "RuntimeError: x")
    assert attempt(raises(AssertionError("x")), stock=True)[0] == "failure"


def test_shares_make_the_whole_and_the_table_counts():
    def cases(rng, folder):
        for number in range(5):
            yield Case(str(number), raises(UserError("u")) if number % 2 else lambda: None, stock=None)
        yield Case("bad", raises(ValueError("v")))

    group = Group("numbers", 6, cases)
    shares = [run_group(group, 1, share, 2) for share in range(2)]
    assert [result.counts.total() for result in shares] == [3, 3]
    whole = run_group(group, 1)
    assert whole.counts == shares[0].counts + shares[1].counts == {"ok": 3, "clean error": 2, "failure": 1}
    assert whole.failures == ["bad: ValueError: v"]
    rows = as_json({"numbers": whole})
    assert table(rows).splitlines()[1].split() == ["numbers", "6", "3", "2", "1"]
    assert table(rows).splitlines()[-1].split() == ["in", "all", "6", "3", "2", "1"]
    assert run_group(group, 1, stock=True).counts.total() == 0


def test_cases_are_the_same_for_the_same_seed():
    drawn = []
    group = Group("drawn", 1, lambda rng, folder: iter([Case(str(drawn.append(rng.random())), lambda: None)]))
    for seed in (3, 3, 4):
        run_group(group, seed)
    assert drawn[0] == drawn[1] == random.Random(3).random() != drawn[2]


def test_permutations_of_one_situation_are_one_case():
    """Two parameters of one test that says so, one of which failed; and one of a test that does not."""

    def report(passed, nodeid, once):
        return SimpleNamespace(passed=passed, nodeid=nodeid, user_properties=[("fault", ("g", "ok", once))])

    reports = [report(False, "a.py::t[1]", "t"), report(True, "a.py::t[2]", "t"), report(True, "a.py::u[1]", "")]
    assert faults_of(reports) == {
        "g": {"cases": 2, "ok": 1, "clean error": 0, "failure": 1, "failures": ["a.py::t[1]"]}
    }
    assert faults_of([report(True, "a.py::t[1]", "t"), report(True, "b.py::t[1]", "t")])["g"]["ok"] == 2
