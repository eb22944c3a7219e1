"""An executed notebook as one HTML page that opens whole without a network: pictures inside, formulas as MathML.

nbconvert makes the page. What it would leave to be fetched is settled here: formulas (it loads MathJax), the libraries
that its template names (require.js, mermaid, widgets: left out), and pictures beside the notebook (put inside).
"""

import re
import warnings
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathBlockParser, MathInlineParser

from ..base.files import write_atomically

# nbconvert's own template without the parts that load something. Browsers draw MathML Core, in which alignment and
# typeface are CSS, not attributes as latex2mathml writes them.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
math { font-size: 1.1em; }
math[display="block"] { margin: 0.8em 0; padding: 0.2em 0; overflow: auto hidden; }
mtd[columnalign="left"] { text-align: left; }
mtd[columnalign="right"] { text-align: right; }
mtable[columnspacing] mtd { padding-left: 0; padding-right: 0; }
[mathvariant^="bold"] { font-weight: bold; }
[mathvariant="monospace"] { font-family: monospace; }
</style>
{%- endblock -%}
"""

# What latex2mathml takes for names or draws badly, in words it knows. Equations are not numbered, except by \\tag.
REWRITTEN = (
    (r"\\(begin|end)\{aligned\}", r"\\\1{split}"),
    (r"\\(begin|end)\{align\}", r"\\\1{align*}"),
    (r"\\label\{[^{}]*\}", ""),
    (r"\\tag\{([^{}]*)\}", r"\\qquad(\\text{\1})"),
    (r"\\sim(?![A-Za-z])", "∼"),
)

# Attributes whose address a browser fetches by itself, whatever the element (href it does for few), and those in CSS.
FETCHING = ("src", "data", "poster", "background")
STYLED = re.compile(r"""(?i)@import\s*(?:url\(\s*)?['"]?([^'")\s;]+)|url\(\s*['"]?([^'")]+)""")

CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "mroot": 2, "msubsup": 3, "munderover": 3}


class UnreadableFormula(Exception):
    """latex2mathml fails on the formula, or gives something that a browser would draw wrongly."""


def formula_to_mathml(latex, display):
    """The <math> element of a LaTeX formula without its dollar signs; UnreadableFormula."""
    if re.sub(r"\\.", "", latex).count("{") != re.sub(r"\\.", "", latex).count("}"):
        raise UnreadableFormula("its braces do not match")
    for pattern, replacement in REWRITTEN:
        latex = re.sub(pattern, replacement, latex)
    try:
        mathml = convert(latex, display="block" if display else "inline")
    except Exception as error:      # beside its own exceptions it raises IndexError, StopIteration and others
        raise UnreadableFormula(type(error).__name__) from error
    mathml = mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "", 1)       # HTML does without
    _check(mathml)
    return mathml


def _check(mathml):
    # It does not fail on a command, environment or argument it does not know: that shows in its result alone.
    try:
        elements = list(ElementTree.fromstring(mathml).iter())
    except ElementTree.ParseError as error:
        raise UnreadableFormula("a stray & or an environment that is not known") from error
    for element in elements:
        if (element.text or "").startswith("\\"):
            raise UnreadableFormula(f"{element.text} is not known")
        if len(element) != CHILDREN.get(element.tag, len(element)):
            raise UnreadableFormula(f"an argument is missing ({element.tag})")
        if "linebreak" in element.attrib:
            raise UnreadableFormula("a line break outside an environment that is known")


class BlockParser(MathBlockParser):
    """Display formulas start a line. nbconvert's search finds $$ within code spans as well."""

    SPECIFICATION = {**MathBlockParser.SPECIFICATION,
                     "multiline_math": rf"^ {{0,3}}(?:{MathBlockParser.MULTILINE_MATH})"}


class InlineParser(MathInlineParser):
    """pandoc's rule, which keeps "$5 and $6" text: no space inside the dollar signs, no digit after the second."""

    INLINE_MATH_TEX = r"(?<![$\\])\$(?=[^\s$])(?P<math_inline_tex>(?:[^$\\`]|\\[^`])+?)(?<!\s)\$(?![\d$])"
    SPECIFICATION = {**MathInlineParser.SPECIFICATION, "inline_math_tex": INLINE_MATH_TEX}


class Renderer(IPythonRenderer):
    """nbconvert's Markdown renderer with formulas as MathML; report(latex, reason) is called for those left as text."""

    def __init__(self, report, **options):
        super().__init__(**options)
        self.report = report

    def inline_math(self, body):
        return self._formula(body, f"${body}$", display=False)

    def block_math(self, body):
        return self._formula(body, f"$${body}$$", display=True)

    def latex_environment(self, name, body):
        source = rf"\begin{{{name}}}{body}\end{{{name}}}"
        return self._formula(source, source, display=True)

    def _formula(self, latex, source, display):
        try:
            return formula_to_mathml(latex, display)
        except UnreadableFormula as error:
            self.report(source, error)
            return f"<code>{escape(source)}</code>"


class Exporter(HTMLExporter):
    """nbconvert's exporter, lab template, with this module's template and Markdown."""

    @pass_context
    def markdown2html(self, context, source):
        cell, path = context.get("cell", {}), context["resources"]["metadata"]["path"]

        def report(formula, reason):
            number = next(i for i, other in enumerate(context["nb"].cells, start=1) if other is cell)
            warnings.warn(f"{context['resources']['metadata']['name']}, cell {number}: the formula {formula} is shown "
                          f"as its source, because it cannot be read ({reason}).")

        renderer = Renderer(report, escape=False, attachments=cell.get("attachments", {}), embed_images=True, path=path)
        return MarkdownWithMath(renderer, block=BlockParser(), inline=InlineParser(hard_wrap=False)).render(source)


def fetched(page):
    """(element's name, address) of everything that a browser would fetch for the page, beside links to click."""
    for element in BeautifulSoup(page, "html.parser").find_all(True):
        addresses = [element[name] for name in FETCHING if element.get(name)]
        if element.name in ("link", "base", "image", "use", "feImage", "feimage"):
            addresses += [element[name] for name in ("href", "xlink:href") if element.get(name)]
        for name in ("srcset", "imagesrcset"):
            # Commas part the candidates, and stand within the address of one that is data.
            addresses += re.findall(r"(?:^|,)\s*([^\s,]\S*[^\s,]|[^\s,])", element.get(name, ""))
        if element.name == "meta" and element.get("http-equiv", "").lower() == "refresh":
            addresses += re.findall(r"(?i)url\s*=\s*['\"]?([^'\"]+)", element.get("content", ""))
        style = element.get("style", "") + (element.get_text() if element.name == "style" else "")
        addresses += [a or b for a, b in STYLED.findall(re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL))]
        if element.get("srcdoc"):
            yield from fetched(element["srcdoc"])
        for address in addresses:
            if not re.match(r"(?i)\s*(data:|#|about:blank|javascript:|$)", address):
                yield element.name, address.strip()


def export_html(notebook_path, html_path):
    """Writes the page of a notebook, the whole of it or nothing; ValueError when the notebook cannot be read.

    Warns of a formula that stays as its LaTeX source, naming the cell, and of what the page would still have to fetch.
    """
    notebook_path = Path(notebook_path)
    try:
        notebook = nbformat.read(notebook_path, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise ValueError(f"The notebook {notebook_path} cannot be read: {error.strerror}.") from error
    except Exception as error:      # nbformat raises whatever the content leads it to
        raise ValueError(f"{notebook_path} is not a notebook, or a damaged one ({type(error).__name__}).") from error
    notebook.metadata.pop("widgets", None)      # drawn by a fetched library; without it their text is shown
    resources = {"metadata": {"name": notebook_path.stem, "path": str(notebook_path.parent)}}
    page, _ = Exporter(raw_template=TEMPLATE).from_notebook_node(notebook, resources)
    for element, address in fetched(page):
        warnings.warn(f"{notebook_path.stem}: the page does not hold {address}, its <{element}> will be missing where "
                      "that cannot be fetched.", stacklevel=2)
    write_atomically(Path(html_path), page.encode("utf-8"))
