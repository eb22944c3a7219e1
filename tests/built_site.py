"""The site in runs/site, as built: whole, offline, nothing dangling. `make site` runs these, not `make test`."""

import json
import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from bs4 import BeautifulSoup

from diffurec.lab.pages import fetched

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "runs" / "site"
# Without the spans of highlighted code, most of all tags: parsing takes long.
PAGES = {path: re.sub(r'<span class="[^"]*">([^<]*)</span>', r"\1", path.read_text(encoding="utf-8"))
         for path in sorted(SITE.rglob("*.html")) if "_downloads" not in path.parts}
PARSED = {path: BeautifulSoup(text, "html.parser") for path, text in PAGES.items()}
ANCHORS = {path: {element["id"] for element in page.find_all(id=True)} for path, page in PARSED.items()}
NOTEBOOKS = [path.relative_to(ROOT) for pattern in ("notebooks/*.ipynb", "notebooks/*/*.ipynb", "docs/*.ipynb",
                                                    "reports/*/report.ipynb") for path in sorted(ROOT.glob(pattern))]
INDEX = json.loads((SITE / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")"))


def local(page, address):
    """The file that a page's address means, and the anchor in it."""
    address, anchor = urldefrag(address)
    return (page.parent / unquote(address.split("?")[0])).resolve() if address else page, unquote(anchor)


def links(page):
    return [link["href"] for link in PARSED[page].find_all("a", href=True) if not urlparse(link["href"]).scheme]


def of(notebook):
    return (SITE / notebook).with_suffix(".html")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_every_link_leads_to_a_place_in_the_site(page):
    for address in links(page):
        target, anchor = local(page, address)
        assert target.is_relative_to(SITE) and target.is_file(), address
        assert not anchor or anchor in ANCHORS.get(target, {anchor}), address


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_all_that_a_page_fetches_is_in_the_site(page):
    for element, address in fetched(PAGES[page]):
        target, _ = local(page, address)
        assert not urlparse(address).scheme and not address.startswith("//"), (element, address)
        assert target.is_relative_to(SITE) and target.is_file(), (element, address)


def test_no_style_sheet_fetches_anything():
    sheets = {path: path.read_text(encoding="utf-8") for path in SITE.rglob("*.css")}
    assert sheets and not any(re.search(r"@import|url\((?!['\"]?(?:data:|#))", sheet) for sheet in sheets.values())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=str)
def test_every_notebook_has_a_page_from_which_it_can_be_downloaded(notebook):
    link, = PARSED[of(notebook)].find_all("a", download=True)
    target, _ = local(of(notebook), link["href"])
    assert target.name == notebook.name and target.read_bytes() == (ROOT / notebook).read_bytes()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=str)
def test_a_notebooks_formulas_and_pictures_are_there(notebook):
    cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"```.*?```|`[^`]*`", "", prose, flags=re.DOTALL)
    article = PARSED[of(notebook)].article
    assert len(article.find_all("math")) == len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", prose, flags=re.DOTALL))
    figures = sum("image/png" in output.get("data", ()) for cell in cells for output in cell.get("outputs", ()))
    assert len(article.select(".cell_output img")) == figures


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_no_formula_is_left_as_its_source(page):
    text = " ".join(part for part in PARSED[page].article.strings
                    if not any(parent.name in ("pre", "code", "annotation", "script") for parent in part.parents))
    assert not re.findall(r"\$[A-Za-z\\({|][^$]*\$|\\(?:frac|hat|lambda|sqrt|text|mathbb|mathcal)\b", text)


def test_every_page_is_reached_from_the_front():
    reached, waiting = set(), [SITE / "index.html"]
    while waiting:
        page = waiting.pop()
        if page in PAGES and page not in reached:
            reached.add(page)
            waiting += [local(page, address)[0] for address in links(page)]
    assert set(PAGES) - reached == {SITE / "search.html"}       # the form leads there


def test_next_leads_through_all_pages_and_previous_back():
    page, seen = SITE / "docs" / "contents.html", []
    while page not in seen:
        seen.append(page)
        if following := PARSED[page].select_one("a.next-page"):
            previous, page = page, local(page, following["href"])[0]
            back, = PARSED[page].select("a.prev-page")
            assert local(page, back["href"])[0] in (previous, SITE / "index.html")
    assert len(seen) == len(INDEX["docnames"])


@pytest.mark.parametrize("word, page", [
    ("pixel", "notebooks/08_offset_noise"), ("offset", "notebooks/08_offset_noise"), ("recbol", "data/README"),
    ("posterior_coeffici", "docs/api/paper"), ("length_batch", "docs/api/data"),        # stems
])
def test_the_search_knows_words_of_the_pages(word, page):
    found = [INDEX[part].get(word, []) for part in ("terms", "titleterms")]
    assert INDEX["docnames"].index(page) in sum((pages if isinstance(pages, list) else [pages] for pages in found), [])


def test_the_front_shows_every_notebook_of_the_tutorial_with_a_picture():
    cards = defaultdict(list)
    for card in PARSED[SITE / "index.html"].select("a.card"):
        cards[local(SITE / "index.html", card["href"])[0]] += card.select("img")
    assert all(len(cards[of(path)]) == 1 for path in NOTEBOOKS if path.parent == Path("notebooks"))
