"""An executed notebook as one HTML page that opens whole without a network: pictures inside, formulas as MathML.

nbconvert makes the page, pandoc its Markdown and formulas. What would be left to be fetched is settled here: the
libraries that nbconvert's template names (MathJax, require.js, mermaid, widgets: left out), and pictures attached to a
cell or lying beside the notebook (put inside).
"""

import re
import warnings
from base64 import b64encode
from collections.abc import Iterator
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pypandoc
from bs4 import BeautifulSoup
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert import HTMLExporter

from ..base.files import write_atomically

# nbconvert's own template without the parts that load something, the cell for bare kernels, and code that is to be hidden.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block codecell -%}
{%- if "remove-cell" not in cell.metadata.get("tags", []) -%}{{ super() }}{%- endif -%}
{%- endblock -%}
{%- block input_group -%}
{%- if "hide-input" not in cell.metadata.get("tags", []) -%}{{ super() }}{%- endif -%}
{%- endblock -%}
{%- block html_head_css -%}
<style>
math { font-size: 1.1em; }
math[display="block"] { margin: 0.8em 0; padding: 0.2em 0; overflow: auto hidden; }
</style>
{%- endblock -%}
"""

# JupyterLab's Markdown in pandoc's words. Its gfm ends a formula at a line that starts with + or -; its own Markdown, which
# nbconvert's filter asks for, takes straight quotes, -- and \name for something else.
MARKDOWN = ("markdown_strict+all_symbols_escapable+backtick_code_blocks+escaped_line_breaks+fenced_code_blocks"
            "+intraword_underscores+lists_without_preceding_blankline+markdown_in_html_blocks+pipe_tables"
            "+space_in_atx_header+startnum+strikeout+task_lists+tex_math_dollars")

# Attributes whose address a browser fetches by itself, whatever the element (href it does for few), and those in CSS.
FETCHING = ("src", "data", "poster", "background")
STYLED = re.compile(r"""(?i)@import\s*(?:url\(\s*)?['"]?([^'")\s;]+)|url\(\s*['"]?([^'")]+)""")


class Exporter(HTMLExporter):
    """nbconvert's exporter, lab template, with this module's template and pandoc for the Markdown."""

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        cell, about = context.get("cell", {}), context["resources"]["metadata"]
        soup = BeautifulSoup(pypandoc.convert_text(
            source, "html", format=MARKDOWN, verify_format=False,
            extra_args=["--mathml", "--wrap=none", "--syntax-highlighting=none", "--quiet"]), "html.parser")
        for heading in soup.find_all(re.compile("^h[1-6]$")):
            heading["id"] = heading.get_text().replace(" ", "-")        # as JupyterLab, for links within the notebook
        for picture in soup.find_all("img", src=True):
            picture["src"] = _held(str(picture["src"]), cell.get("attachments", {}), Path(about["path"]))
        for formula in soup.select("span.math"):        # the others are <math>
            number = next(i for i, other in enumerate(context["nb"].cells, start=1) if other is cell)
            warnings.warn(f"{about['name']}, cell {number}: the formula {formula.get_text()} is shown as its source, "
                          "because pandoc cannot read it.", stacklevel=2)
        return str(soup)


def _held(address: str, attachments: dict, folder: Path) -> str:
    """The address that holds the picture itself, where it is attached or lies in the notebook's folder or below."""
    name = unquote(address)
    for kind, content in attachments.get(name.removeprefix("attachment:"), {}).items():
        return f"data:{kind};base64,{content}"
    if ":" in name or not (folder / name).is_file() or not (folder / name).resolve().is_relative_to(folder.resolve()):
        return address
    return f"data:{guess_type(name)[0]};base64,{b64encode((folder / name).read_bytes()).decode()}"


def fetched(page: str) -> Iterator[tuple[str, str]]:
    """(element's name, address) of everything that a browser would fetch for the page, beside links to click."""
    for element in BeautifulSoup(page, "html.parser").find_all(True):
        attributes: dict[str, Any] = element.attrs
        addresses = [attributes[name] for name in FETCHING if attributes.get(name)]
        if element.name in ("link", "base", "image", "use", "feImage", "feimage"):
            addresses += [attributes[name] for name in ("href", "xlink:href") if attributes.get(name)]
        for name in ("srcset", "imagesrcset"):
            # Commas part the candidates, and stand within the address of one that is data.
            addresses += re.findall(r"(?:^|,)\s*([^\s,]\S*[^\s,]|[^\s,])", attributes.get(name, ""))
        if element.name == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
            addresses += re.findall(r"(?i)url\s*=\s*['\"]?([^'\"]+)", attributes.get("content", ""))
        style = attributes.get("style", "") + (element.get_text() if element.name == "style" else "")
        addresses += [a or b for a, b in STYLED.findall(re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL))]
        if attributes.get("srcdoc"):
            yield from fetched(attributes["srcdoc"])
        for address in addresses:
            if not re.match(r"(?i)\s*(data:|#|about:blank|javascript:|$)", address):
                yield element.name, address.strip()


def export_html(notebook_path: str | Path, html_path: str | Path) -> None:
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
