"""What is shown of names and texts of strangers, by values written down by hand."""

import csv
import io
import logging
import subprocess
import unicodedata

import pytest

from mindghost.process.display import OneLine, address, csv_cell, fenced, html, markdown, say, shell, shown, some

SHOWN = {
    "plain name.png": "plain name.png",
    "Größe 猫 😀 é": "Größe 猫 😀 é",
    "e\u0301": "e\u0301",  # NFD
    "👨\u200d👩": "👨\u200d👩",  # a family is joined
    "a\nb\r\tc": r"a\nb\r\tc",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x00\x07\x7f": r"\x00\x07\x7f",
    "\x9b31m": r"\u009b31m",  # what 8-bit terminals take for ESC [
    "\udc9b31m": r"\x9b31m",  # the byte, in a name that is no UTF-8
    "a\udcffb": r"a\xffb",
    "\ud800": r"\ud800",
    "\x85\u2028\u2029": r"\u0085\u2028\u2029",  # str.splitlines breaks lines there
    "cat\u202egnp.exe": r"cat\u202egnp.exe",  # the rest would be shown backwards
    "\u2066\u2069\u200e\u200f\u061c": r"\u2066\u2069\u200e\u200f\u061c",
    "\ufeffa\u200bb\u00ad\u2060": r"\ufeffa\u200bb\u00ad\u2060",
    "\U000e0041": r"\U000e0041",  # an ASCII letter, of no width
    "\u3164\u115f\uffa0": r"\u3164\u115f\uffa0",  # Hangul that shows nothing
    "\uffff": r"\uffff",
}


@pytest.mark.parametrize(("text", "expected"), SHOWN.items(), ids=map(ascii, SHOWN))
def test_nothing_is_hidden_and_the_rest_stays(text, expected):
    assert shown(text) == expected
    assert shown(expected) == expected


@pytest.mark.fault("names", "ok")
def test_all_characters_are_one_visible_line():
    # But for Chinese letters, and those of private use.
    codes = (*range(0x3400), *range(0xA000, 0x20000), *range(0xE0000, 0xF0000))
    line = shown("".join(map(chr, codes)))
    assert len(line.splitlines()) == 1
    line.encode()  # no half of a pair is left
    joiners = {"\u200c", "\u200d"}
    assert {c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cn")} == joiners


CELLS = {
    "cat": "cat",
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-cat": "'-cat",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": r"'\t=1",
    "\r=1": r"'\r=1",
    "\uff1d1": "'\uff1d1",
    "a=1": "a=1",
    "a\nb": r"a\nb",
    "c\udcff": r"c\xff",
}


@pytest.mark.parametrize(("text", "expected"), CELLS.items(), ids=map(ascii, CELLS))
def test_a_cell_is_no_formula_and_one_line(text, expected):
    assert csv_cell(text) == expected
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow([csv_cell(text), 1])
    assert file.getvalue().count("\n") == 1


def test_markdown_shows_what_it_was_given():
    assert markdown("a-b (1.5) c") == "a-b (1.5) c"
    assert markdown("a_b") == r"a\_b"
    assert markdown("](http://x)") == r"\](http\://x)"
    assert markdown("![x][y]") == r"!\[x\]\[y\]"
    assert markdown("<b>|`x`") == r"\<b\>\|\`x\`"
    assert markdown("a\n# b") == r"a\\n# b"
    assert markdown("# b") == r"\# b"
    assert markdown("- b") == r"\- b"
    assert markdown("12. b") == r"12\. b"
    assert markdown("$x$ ~y~ &lt;") == r"\$x\$ \~y\~ \&lt;"
    assert markdown("WWW.x.com, me@x.com") == r"WWW\.x.com, me\@x.com"


@pytest.mark.fault("class names", "ok")
def test_a_fence_is_not_ended_by_what_is_in_it():
    assert fenced("yaml", "a: 1\nb: 2") == "````yaml\na: 1\nb: 2\n````"
    assert fenced("", "a\n`````\n# b\x1b") == "``````\na\n`````\n# b\\x1b\n``````"


def test_html_and_addresses():
    assert html("<a href='x'>\u202e&") == "&lt;a href=&#x27;x&#x27;&gt;\\u202e&amp;"
    assert address("a b)](x\n\udcff.png") == "a%20b%29%5D%28x%0A%FF.png"
    assert address("javascript:alert") == "javascript%3Aalert"


@pytest.mark.fault("names", "ok")
def test_a_word_for_the_shell_is_the_same_bytes_again():
    words = ["plain", "a b", "it's", "a\nb", "\x1b'\\\udcff\udcc3", "dö\u202e", "\x9b", "$x `y` !"]
    assert shell("plain") == "plain"
    assert shell("a b") == "'a b'"
    assert shell("a\n'") == r"$'a\n\''"
    said = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {' '.join(map(shell, words))}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    ).stdout
    assert said == b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)


def test_what_is_said_and_logged_is_one_line(capsys):
    say("a\nb: \x1b[2J")
    assert capsys.readouterr().out == "a\\nb: \\x1b[2J\n"
    record = logging.makeLogRecord({"msg": "%s is\u2028there", "args": ("a\nb",)})
    assert OneLine("note: %(message)s").format(record) == r"note: a\nb is\u2028there"


def test_long_lists_of_names_are_cut_short():
    assert [some(list("abc")[:count], 2) for count in (0, 1, 2, 3)] == ["", "a", "a, b", "a, b and 1 more"]
    assert some(range(2_000)) == "0, 1, 2, 3 and 1,996 more"
