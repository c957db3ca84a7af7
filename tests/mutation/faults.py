"""Small faults in Python source, for mutants.py: one changed operator, constant or argument, one lost line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Div, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_TEXTS = {"add_argument", "ArgumentParser", "Parser"}  # their keywords are help texts, but for a few
_OTHERS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


class Fault(NamedTuple):
    """One faulty version of a source file."""

    line: int
    kind: str
    before: str
    after: str
    source: str  # the whole file


def faults_in(text: str) -> Iterator[Fault]:
    """All faults of our kinds; not in docstrings, type hints, decorators, messages and code for type checkers."""
    source = text.encode()
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:index])) for index in range(len(lines))]
    for node in _targets(ast.parse(text)):
        for kind, place, new in _faults(node):
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            faulty = (source[:start] + new.encode() + source[end:]).decode()
            yield Fault(place.lineno, kind, " ".join(source[start:end].decode().split()), new, faulty)


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """Kind, node that is replaced, and its new text, of each fault that can be put into a node itself."""
    match node:
        case ast.Compare(left, [operator, *more], [right, *rest]) if type(operator) in _COMPARE:
            changed = ast.Compare(left, [_COMPARE[type(operator)](), *more], [right, *rest])
            yield "compare", node, _text(changed)
        case ast.BinOp(left, operator, right) if type(operator) in _ARITHMETIC:
            yield "arithmetic", node, _text(ast.BinOp(left, _ARITHMETIC[type(operator)](), right))
        case ast.AugAssign(target, operator, value) if type(operator) in _ARITHMETIC:
            yield "arithmetic", node, _text(ast.AugAssign(target, _ARITHMETIC[type(operator)](), value))
            yield "statement", node, "pass"
        case ast.Constant(bool() as value):
            yield "constant", node, str(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", node, f"({value + 1})"
            if value:
                yield "constant", node, "0"
        case ast.BoolOp(operator, values):
            yield "boolean", node, _text(ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values))
        case ast.If(test) | ast.IfExp(test) | ast.While(test) if not isinstance(test, ast.UnaryOp | ast.Constant):
            yield "boolean", test, f"(not ({ast.unparse(test)}))"
        case ast.UnaryOp(ast.Not(), operand):
            yield "not", node, f"({ast.unparse(operand)})"
        case ast.Expr(ast.Call() | ast.Yield() | ast.Await()) | ast.Raise() | ast.Continue() | ast.Break():
            yield "statement", node, "pass"
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield "statement", node, "pass"
        case ast.Return(value) if value is not None and ast.unparse(value) != "None":
            yield "return", node, "return None"
        case ast.Slice(lower, upper):
            for bound in filter(None, (lower, upper)):
                yield "slice", bound, f"({ast.unparse(bound)}) + 1"
                yield "slice", bound, f"({ast.unparse(bound)}) - 1"
        case ast.Call(function, arguments, keywords):
            for keyword in keywords:
                if keyword.arg and ast.unparse(function).rpartition(".")[2] not in _TEXTS:
                    yield "keyword", keyword, "**{}"
            plain = not any(isinstance(argument, ast.Starred) for argument in arguments)
            plain &= ast.unparse(function) not in ("min", "max")  # which take them in any order
            if plain and len(arguments) > 1 and ast.unparse(arguments[0]) != ast.unparse(arguments[1]):
                yield (
                    "arguments",
                    node,
                    _text(ast.Call(function, [arguments[1], arguments[0], *arguments[2:]], keywords)),
                )
            name = ast.unparse(function)
            if other := _OTHERS.get(name.removeprefix("math.")):
                yield "function", function, name.removesuffix(name.removeprefix("math.")) + other


def _text(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(node))
    return text if isinstance(node, ast.stmt) else f"({text})"


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what lies below it, without what is left alone."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return
    yield node
    skipped = {"annotation", "returns", "decorator_list", "type_comment"}
    if isinstance(node, ast.Raise):
        skipped |= {"exc", "cause"}
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _targets(child)
