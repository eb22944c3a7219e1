"""The page of a notebook: whole without a network, its formulas drawn, and never half-written."""

import os
import warnings
from base64 import b64decode

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from diffurec.lab.pages import export_html

PIXEL = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
STYLED = '<style type="text/css">#T_a td {color: red;}</style><table id="T_a"><tr><td>$5</td><td>$6</td></tr></table>'


def page_of(tmp_path, *cells, **metadata):
    """(the text of the page, the page parsed) of a notebook with these cells; strings are Markdown."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "example.ipynb")
    export_html(tmp_path / "example.ipynb", tmp_path / "example.html")
    text = (tmp_path / "example.html").read_text(encoding="utf-8")
    return text, BeautifulSoup(text, "html.parser")


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_nothing_is_fetched(tmp_path):
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a"},
                                         "text/plain": "100 %"})
    text, page = page_of(
        tmp_path, "# Title\n\n$x$ and a [link](https://example.org).\n\n```mermaid\ngraph TD;\n```",
        new_code_cell("1", execution_count=1, outputs=[widget]),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}})
    for element in page.find_all(["script", "link", "img", "iframe"]):
        assert "http" not in element.get("src", "") + element.get("href", "")
    assert page.find("script") is None
    for name in ("cdnjs", "unpkg", "jsdelivr", "mathjax", "require.js", "@import", "url(http"):
        assert name not in text.lower()
    assert "100 %" in text and "graph TD;" in text
    assert page.find("a", href="https://example.org")


def test_the_cell_for_bare_kernels_is_left_out(tmp_path):
    text, _ = page_of(tmp_path, new_code_cell("first = 1", metadata={"tags": ["remove-cell"]}),
                      new_code_cell("second = 2", metadata={"tags": ["trained"]}), new_code_cell("third = 3"))
    visible = BeautifulSoup(text, "html.parser").get_text()
    assert "first" not in visible and "second" in visible and "third" in visible


def shown(element):
    """The text that a browser shows of an element, with one space for any; pandoc keeps a formula's source beside it."""
    return " ".join("".join(text for text in element.strings if text.parent.name != "annotation").split())


@pytest.mark.parametrize("source, display", [
    ("so $x_0$ is", "inline"), ("# Title $x_0$", "inline"), ("| a |\n|---|\n| $x_0$ |", "inline"),
    ("- item $x_0$", "inline"), ("**bold $x_0$**", "inline"), ("$$\nx_0\n+ 1\n- 2\n$$", "block"), ("so $$x_0$$ is", "block"),
    ("$$\\begin{aligned} x_0 &= 1 \\\\ &= 2 \\end{aligned}$$", "block"),
    (r"$$f = \begin{cases} x_0 & a \\ 1 & b \end{cases}$$", "block"),
])
def test_formulas_become_mathml(tmp_path, source, display):
    _, page = page_of(tmp_path, source)
    (formula,) = page.find_all("math")
    assert formula["display"] == display
    assert shown(formula.find("msub")) == "x0"
    assert "$" not in shown(page.main) and "\\" not in shown(page.main)


@pytest.mark.parametrize("source, visible", [
    ("between $5 and $6", "between $5 and $6"), ("$5-$6", "$5-$6"), (r"\$x\$", "$x$"), ("`$x$`", "$x$"),
    ("`$$` and `$$`", "$$ and $$"), (r"`\begin{align}` to `\end{align}`", r"\begin{align} to \end{align}"),
    ("```\n$$ x $$\n```", "$$ x $$"), ("text\n\n    indented $code$", "indented $code$"),
])
def test_dollars_that_are_no_formula(tmp_path, source, visible):
    _, page = page_of(tmp_path, source)
    assert page.find("math") is None
    assert visible in shown(page.main)


def test_a_formula_beside_prices(tmp_path):
    _, page = page_of(tmp_path, "from $5 to $6 for $x$ and $y$")
    assert [shown(formula) for formula in page.find_all("math")] == ["x", "y"]
    assert "from $5 to $6 for x and y" in shown(page.main)


def test_markdown_is_read_as_jupyterlab_reads_it(tmp_path):
    _, page = page_of(tmp_path, "HR@10 of --out \"x\" in C:\\Users\\name:\n- one\n- two", "Then\n# Next part",
                      "---\na: b\n\n---", "<details>\n<summary>Hint</summary>\n\n**bold**\n\n</details>")
    assert 'HR@10 of --out "x" in C:\\Users\\name:' in shown(page.main) and "a: b" in shown(page.main)
    assert [item.get_text() for item in page.main.find_all("li")] == ["one", "two"]
    assert page.find("h1").get_text() == "Next part" and page.find(id="Next-part").name == "h1"
    assert page.main.details.strong.get_text() == "bold" and page.main.find("a") is None


def test_a_formula_in_an_output_in_markdown(tmp_path):
    output = new_output("display_data", {"text/markdown": "mean $x_0$", "text/plain": "?"})
    _, page = page_of(tmp_path, new_code_cell("1", execution_count=1, outputs=[output]))
    assert len(page.find_all("math")) == 1


@pytest.mark.parametrize("formula", [
    r"\nosuchcommand{x}", r"\frac{1}", r"\begin{nosuch} a & b \end{nosuch}", "a & b", "^",
])
def test_a_formula_that_cannot_be_read(tmp_path, formula):
    with pytest.warns(UserWarning, match="example, cell 2: the formula") as caught:
        _, page = page_of(tmp_path, "First.", f"Second ${formula}$ and $y$.")
    assert len(caught) == 1 and f"${formula}$" in str(caught[0].message)
    assert f"${formula}$" in shown(page.main)
    assert [shown(element) for element in page.find_all("math")] == ["y"]


@pytest.mark.parametrize("formula", [
    r"x_s = \sqrt{\bar\alpha_s}\,x_0 + \sqrt{1-\bar\alpha_s}\,\epsilon", r"\epsilon \sim \mathcal{N}(0, I)",
    r"\mathbb{E}\left[\lVert\hat{\mathbf x}_0 - x_0\rVert_2^2\right]", r"x_{<t} \in \mathbb{R}^{L \times d}",
    r"\operatorname{softmax}\left(\frac{QK^\top}{\sqrt{d}}\right)V", r"-\log\frac{e^{z_i}}{\sum_{j=1}^{|I|} e^{z_j}}",
    r"\lambda_i \odot (x_s + d) \tag{3} \label{eq}", r"\text{HR@}K = \tfrac{1}{|U|}\sum_u \mathbb{1}[r_u \le K]",
])
def test_the_formulas_of_the_field(tmp_path, formula):
    _, page = page_of(tmp_path, f"$${formula}$$")
    assert page.find("math")["display"] == "block" and "\\" not in shown(page.main)


def test_pictures_and_styled_tables_survive(tmp_path):
    for name in ("beside.png", "with a space.png", "über.png", "inline.png"):
        (tmp_path / name).write_bytes(b64decode(PIXEL))
    pictures = new_markdown_cell("![a](beside.png) ![b](<with a space.png>) ![c](über.png) <img src='inline.png' width=9>"
                                 " ![d](attachment:attached.png)", attachments={"attached.png": {"image/png": PIXEL}})
    figure = new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure size 640x480 with 1 Axes>"})
    table = new_output("execute_result", {"text/html": STYLED, "text/plain": "$5 $6"}, execution_count=1)
    text, page = page_of(tmp_path, pictures, new_code_cell("draw()", execution_count=1, outputs=[figure, table]))
    assert [image["src"] for image in page.find_all("img")] == [f"data:image/png;base64,{PIXEL}"] * 6
    assert "#T_a td {color: red;}" in text
    assert [cell.get_text() for cell in page.find(id="T_a").find_all("td")] == ["$5", "$6"]
    assert "highlight" in text


@pytest.mark.parametrize("address", ["https://example.org/a.png", "../outside.png", "missing.png",
                                     "attachment:missing.png"])
def test_a_picture_that_the_page_does_not_hold(tmp_path, address):
    (tmp_path / "outside.png").write_bytes(b64decode(PIXEL))
    (tmp_path / "inside").mkdir()
    with pytest.warns(UserWarning, match="does not hold " + address.replace(".", r"\.")):
        page_of(tmp_path / "inside", f"![a picture]({address})")


FETCHED = [
    '<object data="a.svg"></object>', '<embed src="a.swf">', '<audio src="a.mp3"></audio>', '<track src="a.vtt">',
    '<video poster="a.png"></video>', '<video><source src="a.mp4"></video>', '<base href="https://example.org/">',
    '<meta http-equiv="refresh" content="0; url=https://example.org/a">', "<META HTTP-EQUIV=Refresh CONTENT='1;URL=a.html'>",
    '<img srcset="a.png 1x, b.png 2x">', f'<img srcset="data:image/png;base64,{PIXEL} 1x, a.png 2x">',
    '<picture><source srcset="a.png"></picture>', '<link rel="stylesheet" href="a.css">', '<script src="a.js"></script>',
    '<style>@import "a.css";</style>', "<style>@import url(a.css);</style>", "<style>@IMPORT 'a.css' screen;</style>",
    "<style>p { background: url('a.png') }</style>", "<style>@font-face { src: url(a.woff2) }</style>",
    '<p style="background: URL( a.png )">x</p>', '<svg><image href="a.png"/></svg>', '<svg><use xlink:href="a.svg#b"/></svg>',
    '<iframe src="a.html"></iframe>', '<iframe srcdoc="<img src=a.png>"></iframe>', '<input type="image" src="a.png">',
    '<table background="a.png"></table>', '<frame src="a.html">',
]


@pytest.mark.parametrize("source", FETCHED)
def test_whatever_a_page_would_fetch_is_warned_of(tmp_path, source):
    output = new_output("display_data", {"text/html": f"<div>{source}</div>", "text/plain": "?"})
    with pytest.warns(UserWarning, match="example: the page does not hold (a|b|https://example.org/)"):
        page_of(tmp_path, new_code_cell("1", execution_count=1, outputs=[output]))


@pytest.mark.parametrize("source", [
    f'<img src="data:image/png;base64,{PIXEL}">', f'<img srcset="data:image/png;base64,{PIXEL} 1x">', '<a href="a.html">a</a>',
    f"<style>p {{ background: url(data:image/png;base64,{PIXEL}) }}</style>", '<svg><use href="#b"/></svg>',
    "<style>/* @import 'a.css'; */ p { fill: url(#b) }</style>", '<p style="color: red">url(a.png)</p>',
    '<iframe src="about:blank"></iframe>', '<meta name="refresh" content="url=a">',
])
def test_of_what_a_page_holds_or_only_links_to_nothing_is_said(tmp_path, source):
    output = new_output("display_data", {"text/html": f"<div>{source}</div>", "text/plain": "?"})
    page_of(tmp_path, new_code_cell("1", execution_count=1, outputs=[output]))


@pytest.mark.parametrize("what, content", [
    ("that is not there", None), ("that is empty", b""), ("that is prose", b"no notebook"), ("that is a list", b"[]"),
    ("that is an empty object", b"{}"), ("with its version alone", b'{"nbformat": 4}'), ("that is not UTF-8", b"\xff\xfe"),
    ("with a cell of nothing", b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}')])
def test_no_notebook_is_one_sentence(refused, tmp_path, what, content):
    notebook, page = tmp_path / "bad.ipynb", tmp_path / "bad.html"
    if content is not None:
        notebook.write_bytes(content)
    page.write_text("the old page")
    with refused(f"a notebook {what}", ValueError) as caught:
        export_html(notebook, page)
    assert str(notebook) in str(caught.value) and "\n" not in str(caught.value)
    assert page.read_text() == "the old page"


def test_a_failed_write_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    nbformat.write(new_notebook(cells=[new_markdown_cell("new")]), tmp_path / "a.ipynb")
    (tmp_path / "a.html").write_text("the old page")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        export_html(tmp_path / "a.ipynb", tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == "the old page"
    assert sorted(os.listdir(tmp_path)) == ["a.html", "a.ipynb"]
