"""The faults that mutants.py makes: of every kind, and none where nothing would follow."""

from tests.mutation.__main__ import ROOM, ROOT, copy_repository, named_mutants
from tests.mutation.faults import faults_in

SOURCE = '''\
"""A text with 1 < 2 in it."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import x
@cached(size=3)
def f(a: Literal[4], b=True) -> None:
    if a < len(b) and not b:
        raise ValueError("a", 5)
    b.close()
    return g(a, b, key=f"{a + 6}")[a:]
'''


def test_faults_by_hand():
    made = {(fault.line, fault.kind, fault.before, fault.after) for fault in faults_in(SOURCE)}
    assert made == {
        (6, "constant", "True", "False"),
        (7, "boolean", "a < len(b) and not b", "(a < len(b) or not b)"),
        (7, "boolean", "a < len(b) and not b", "(not (a < len(b) and (not b)))"),
        (7, "compare", "a < len(b)", "(a <= len(b))"),
        (7, "not", "not b", "(b)"),
        (8, "statement", 'raise ValueError("a", 5)', "pass"),
        (9, "statement", "b.close()", "pass"),
        (10, "return", 'return g(a, b, key=f"{a + 6}")[a:]', "return None"),
        (10, "arguments", 'g(a, b, key=f"{a + 6}")', "(g(b, a, key=f'{a + 6}'))"),
        (10, "keyword", 'key=f"{a + 6}"', "**{}"),
        (10, "slice", "a", "(a) + 1"),
        (10, "slice", "a", "(a) - 1"),
    }


def test_a_fault_changes_its_place_alone():
    for fault in faults_in(SOURCE):
        compile(fault.source, "faulty", "exec")
        before, after = SOURCE.splitlines(), fault.source.splitlines()
        assert [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]] == [
            fault.line
        ]


def test_named_faults_can_still_be_made():
    assert {mutant.room for mutant in named_mutants(ROOT)} <= set(ROOM)


def test_the_copy_that_mutants_are_made_in_is_the_repository(tmp_path):
    copy_repository(tmp_path)
    for name in (
        "src/mindghost/train/step.py",
        "src/mindghost/configs/ghostnet/ghostnet_050_cpu.yaml",
        "tests/conftest.py",
    ):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    assert (tmp_path / "src" / "mindghost" / "configs").is_symlink()
