"""What all command lines have in common: numbers within bounds, files and folders that options name."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from mindghost.config.arguments import (
    Parser,
    input_file,
    input_folder,
    number,
    number_of_bytes,
    output_file,
    output_folder,
    recipe_file,
)
from mindghost.config.types import Expected, expected
from mindghost.errors import UserError


def parse(kind, text: str):
    parser = Parser("p")
    parser.add_argument("--x", type=kind)
    return parser.parse_args(["--x", text]).x


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(int, "1", 1), (int, "10", 10), (float, "2.5", 2.5), (float, "10", 10.0)]
)
def test_a_number_within_its_bounds(kind, text, value):
    assert parse(number(kind, 1, 10), text) == value


@pytest.mark.parametrize(
    ("kind", "text"), [(int, "0"), (int, "11"), (int, "2.5"), (float, "nan"), (float, "10.1"), (int, "x")]
)
def test_a_number_beyond_them(kind, text):
    noun = "an integer" if kind is int else "a number"
    with pytest.raises(UserError, match=rf"--x: expected {noun} from 1 to 10, got '{text}'"):
        parse(number(kind, 1, 10), text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4096", 4096), ("512kB", 512_000), ("512KB", 512_000), ("1MB", 1_000_000), ("1.5m", 1_500_000), ("2KiB", 2048)],
)
def test_an_amount_of_memory(text, value):
    assert parse(number_of_bytes, text) == value


@pytest.mark.parametrize("text", ["", "kB", "-1", "1GB", "1 MB", "1e6", "nan", "9" * 40])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(UserError, match="--x: expected a number of bytes, such as 512kB or 1MB, got"):
        parse(number_of_bytes, text)


def test_files_and_folders_of_the_right_kind(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("x")
    assert parse(input_file("give one"), str(file)) == file
    assert parse(input_folder("give one"), str(tmp_path)) == tmp_path
    assert parse(output_file, str(tmp_path / "new")) == tmp_path / "new"
    assert parse(output_folder, str(tmp_path / "new")) == tmp_path / "new"
    assert parse(recipe_file, "ghostnet_050_cpu").name == "ghostnet_050_cpu.yaml"


def test_files_and_folders_that_cannot_be_used_name_the_option_and_the_remedy(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(UserError, match=rf"^--x: {missing}: no such file; give one$"):
        parse(input_file("give one"), missing)
    with pytest.raises(UserError, match=rf"^--x: {missing}: no such folder; give one$"):
        parse(input_folder("give one"), missing)
    with pytest.raises(UserError, match=rf"^--x: {tmp_path}"):
        parse(output_file, str(tmp_path))


def test_choices_with_commas_are_told_apart_from_what_else_a_type_takes():
    assert expected(int | None) == "an integer or None"
    assert expected(Literal["a", "b", "c"] | None).endswith("c, or None")
    assert expected(Annotated[Annotated[int, Expected("a count")], "other"]) == "a count"
