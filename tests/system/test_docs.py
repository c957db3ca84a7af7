"""README.md, CONTRIBUTING.md and the pages of docs/: the site is built, links lead somewhere, lines are short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mindghost.config import Config
from mindghost.models import CARDS, SEGMENTATION
from tests.helpers.places import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = {ROOT / "docs" / "keys.md"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What a link can name in a page, as Markdown viewers make it of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation, built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} | {"keys"}
    assert {path.parent.name for path in site.glob("*/index.html")} == pages


def test_the_page_of_keys_has_every_key(site):
    page = (site / "keys" / "index.html").read_text(encoding="utf-8")
    assert set(Config.model_fields) <= set(re.findall(r"<td><code>(\w+)</code></td>", page))


def test_a_broken_link_is_an_error(tmp_path):
    """The build is as strict as the tests take it to be."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Page\n\n[nowhere](nowhere.md) [no heading](#none)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nstrict: true\nvalidation: {links: {anchors: warn}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", "site"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Aborted with 2 warnings" in done.stdout + done.stderr


@by_name
def test_lines_are_short(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [f"{page.name}:{number}" for number, line in enumerate(lines, 1) if len(line) > 125] == []


@by_name
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target in GENERATED or target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@by_name
def test_files_of_ours_that_are_named_exist(page):
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|cpp|h|sh|yaml))`", prose(page))
    assert [
        name for name in named if not any((place / name).exists() for place in (ROOT, ROOT / "src/mindghost"))
    ] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_chinese_readme_has_the_same_commands_links_and_figures():
    ours, theirs = ROOT / "README.md", ROOT / "README.zh.md"
    assert blocks(ours) == blocks(theirs)
    for pattern in (LINK, re.compile(r"`[^`]+`"), re.compile(r"\d+\.\d+")):
        found, wanted = ([" ".join(each.split()) for each in pattern.findall(prose(page))] for page in (theirs, ours))
        other = {"README.md", "README.zh.md"}
        assert set(found) - other == set(wanted) - other, pattern.pattern
    counts = [len(re.findall(r"^[#|]", prose(page), re.MULTILINE)) for page in (theirs, ours)]
    assert counts[0] == counts[1], "headings and rows of tables"


def rows(page: Path) -> list[list[str]]:
    """The cells of each row of the tables of a page."""
    lines = re.findall(r"^\| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def millions(number: int, like: str) -> str:
    """A number in millions, with as many digits after the point as this text has."""
    return f"{number / 1e6:.{len(like.partition('.')[2])}f}"


def test_the_readme_counts_its_networks_right():
    """Three or four networks stand in a row, those of V3 and RepGhostNet in their fused form."""
    found = set()
    for names, *numbers in rows(ROOT / "README.md"):
        if not names.startswith(("`ghostnet", "`repghostnet")):
            continue
        first, *others = re.findall(r"`(\w+)`", names)
        of_row = [first, *(first.rpartition("_")[0] + end for end in others)]
        parameters, macs, top_1 = ([cell.strip() for cell in cells.split(",")] for cells in numbers)
        for name, *said in zip(of_row, parameters, macs, top_1, strict=True):
            card = CARDS[name]
            counts = (card.fused_parameters or card.parameters, card.fused_macs or card.macs)
            assert said == [*map(millions, counts, said), str(card.paper_top_1)]
            found.add(name)
    families = {name.rpartition("_")[0] for name in found}
    assert found == {name for name in CARDS if name.rpartition("_")[0] in families}
    assert families >= {"ghostnet", "ghostnetv2", "ghostnetv3"}


def test_the_page_of_networks_counts_them_right():
    for name, *cells in rows(ROOT / "docs" / "networks.md"):
        card = CARDS.get(name.strip("`"))
        if card is None or len(cells) == 1:
            continue
        if card.task == SEGMENTATION:
            assert cells[:2] == [f"{card.parameters:,}", f"{card.macs:,}"]
            continue
        if name.startswith("`ghostnet_"):
            counts = [f"{card.parameters:,}", f"{card.macs:,}", f"{card.paper_top_1} %", f"{card.mindcv_top_1:.2f} %"]
            assert cells == counts
            continue
        parameters, macs, fused, paper, top_1 = cells
        assert [parameters, macs] == [millions(card.parameters, parameters), millions(card.macs, macs)]
        if card.fused_macs:
            said = fused.split(" / ")
            assert said == [*map(millions, (card.fused_parameters, card.fused_macs), said)]
        assert [float(each) for each in paper.split(" / ")] == [card.paper_parameters, card.paper_macs]
        assert [float(each) for each in top_1.split(" / ")] == [
            each for each in (card.paper_top_1, card.timm_top_1) if each
        ]


def test_the_page_of_weights_lists_what_is_published():
    said = {tuple(row) for row in rows(ROOT / "docs" / "weights.md") if row[0].startswith("`ghostnet")}
    assert said == {
        (
            f"`{name}`",
            f"`{variant or True}`",
            f"`{file.url.rpartition('/')[2]}`",
            f"{file.top_1:.2f} / {file.top_5:.2f} %",
        )
        for name, card in CARDS.items()
        for variant, file in card.weights.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/networks.md", "docs/mindcv.md"])
def test_examples_in_python_run(name, capsys):
    """And print what the page says, but for times."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE)
    found = blocks(ROOT / name)
    for language, text in found:
        if language == "python":
            exec(compile(text, name, "exec"), {})
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ms an image")]
    printed = [text.splitlines() for language, text in found if language == "text"]
    assert said == [line for lines in printed for line in lines if not line.startswith("ms an image")]


def test_the_tour_names_every_room_from_the_top_down():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    files = {path.stem for path in (ROOT / "src" / "mindghost").glob("*.py")} - {"__init__", "__main__", "amp"}
    folders = {path.parent.name for path in (ROOT / "src" / "mindghost").glob("*/__init__.py")}
    assert sorted(named) == sorted(files | folders)
    (layers,) = re.findall(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    floors = [
        number for room in named for number, floor in enumerate(layers.splitlines()) if re.search(rf"\b{room}\b", floor)
    ]
    assert floors == sorted(floors)
    assert len(floors) == len(named)
