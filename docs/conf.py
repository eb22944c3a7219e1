"""The site: `make site` builds it with Sphinx out of the checkout, so that a relative link leads where it leads there.

Pages are the notebooks, as committed, and the Markdown; a link to any other text file leads to a page with its lines.
Nothing is fetched: formulas are MathML, made beforehand by pandoc, and fonts are the reader's.
"""

import dataclasses
import html
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypandoc
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import diffurec

ROOT = Path(__file__).resolve().parent.parent
CALM = {
    "color-sidebar-link-text": "var(--color-foreground-secondary)",
    "color-sidebar-link-text--top-level": "var(--color-foreground-primary)",
    "color-api-name": "var(--color-brand-content)", "color-api-pre-name": "var(--color-brand-content)",
    "mystnb-source-bg-color": "var(--color-code-background)", "mystnb-source-border-color": "var(--color-background-border)",
    "mystnb-source-margin-color": "var(--color-brand-content)",
}
logger = logging.getLogger(__name__)

project = "DiffuRec by notebook"
version = release = diffurec.__version__
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode"]
root_doc = "docs/contents"
include_patterns = ["docs/**", "notebooks/**", "reports/*/report.ipynb", "data/*.md", "tests/MUTANTS.md",
                    "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "runs", "build", "data/cache", "**/.ipynb_checkpoints", "docs/_*"]

# Notebooks
nb_execution_mode = "off"
nb_ipywidgets_js = {}       # addresses of libraries; without them a widget's text is shown
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False      # "$5 and $6" is no formula
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "source": "{{path}}.html#{{fragment}}"}

# The package
autodoc_default_options = {"members": True, "member-order": "bysource", "undoc-members": True}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"
smartquotes = False
default_role = "code"       # `x` in a docstring

# Pages
html_theme = "furo"
html_theme_options = {
    "top_of_page_buttons": ["view"],        # for notebooks, to download: see _templates/components
    "light_css_variables": {"color-brand-primary": "#1b4f72", "color-brand-content": "#1f6391", **CALM},
    "dark_css_variables": {"color-brand-primary": "#8fc1e3", "color-brand-content": "#8fc1e3", **CALM},
}
html_math_renderer = "mathml"
html_static_path = ["_static", "model.svg"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "front.html"}
html_context = {"master_doc": "index"}
html_copy_source = True
html_sourcelink_suffix = ""     # so the copy of a notebook has its name
html_show_search_summary = False    # read by requests, which a browser refuses between files
html_show_copyright = False
linkcheck_ignore = ["(?!http)"]     # the others are checked by tests/built_site.py
html_domain_indices = False


# Notebooks: their solutions stand below them
def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Adds what a page has beyond its source, and leads links to text that is no page to `source_pages`."""
    folder = ROOT / Path(docname).parent
    if app.env.doc2path(docname).suffix != ".ipynb":
        source[0] = with_sources(app, folder, source[0])
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = with_sources(app, folder, "".join(cell["source"]))
            # As in JupyterLab: a formula's line that starts with a plus is no list, and headings' anchors have capitals.
            text = re.sub(r"\$[^\s$`]([^$`]*[^\s$`])?\$(?!\d)", lambda formula: re.sub(r"\n\s*(?=[+-])", " ", formula[0]), text)
            cell["source"] = re.sub(r"\]\(#[^)]+\)", lambda link: link[0].lower(), text)
    if (folder / "solutions" / f"{Path(docname).name}.ipynb").exists():
        children = f"```{{toctree}}\n:hidden:\nSolutions <solutions/{Path(docname).name}>\n```"
        notebook["cells"].append({"cell_type": "markdown", "id": "solutions", "metadata": {}, "source": children})
    source[0] = json.dumps(notebook)


def with_sources(app: Sphinx, folder: Path, text: str) -> str:
    """Markdown whose links to text files that are no page are of the scheme `source`, as are those to the README."""
    def led(link: re.Match) -> str:
        path = (folder / link[1]).resolve()
        if path == ROOT / "README.md":
            return f"](source:{link[1].replace('README.md', 'index')})"
        is_page = app.env.path2doc(path) in app.project.docnames
        if is_page or not path.is_file() or not path.is_relative_to(ROOT):
            return link[0]
        if path.suffix == ".ipynb":
            return f"](path:{link[1]})"     # a copy to download
        if path.suffix not in LEXERS:       # so it is, too, or a picture
            return link[0]
        sources.add(path.relative_to(ROOT))
        return f"](source:{link[1]}{link[2] or ''})"

    return re.sub(r"\]\(([\w./-]+)(#[\w-]+)?\)", led, text)


# Text that is no page
LEXERS = {"": "text", ".cff": "yaml", ".cfg": "ini", ".csv": "text", ".json": "json", ".md": "markdown", ".py": "python",
          ".toml": "toml", ".txt": "text", ".yml": "yaml"}
sources: set[Path] = set()


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a documented object is, seen from docs/api."""
    found: Any = sys.modules[info["module"]]
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    try:
        found = inspect.unwrap(getattr(found, "fget", found))
        path = Path(inspect.getsourcefile(found)).relative_to(ROOT)
    except (TypeError, ValueError):     # a number, or not ours
        return None
    sources.add(path)
    return f"../../{path.as_posix()}.html#L{inspect.getsourcelines(found)[1]}"


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """A page for each text file that something links to, with an anchor for each of its lines."""
    for path in sorted(sources):
        code = app.builder.highlighter.highlight_block(
            (ROOT / path).read_text(encoding="utf-8"), LEXERS[path.suffix], linespans="L")
        yield path.as_posix(), {"title": path.name, "body": f"<h1>{html.escape(path.as_posix())}</h1>"
                                + code.replace('id="L-', 'id="L')}, "page.html"


# Formulas
mathml: dict[tuple[str, str], str] = {}


def draw_formulas(app: Sphinx, env: BuildEnvironment) -> None:
    """Fills `mathml` by one call of pandoc, which takes a tenth of a second to start."""
    found = {(kind(node), node.astext()): node for docname in sorted(env.found_docs)
             for node in env.get_doctree(docname).findall(lambda node: isinstance(node, (nodes.math, nodes.math_block)))}
    document = {"pandoc-api-version": [1, 23], "meta": {},
                "blocks": [{"t": "Para", "c": [{"t": "Math", "c": [{"t": how}, source]}]} for how, source in found]}
    page = pypandoc.convert_text(json.dumps(document), "html", format="json",
                                 extra_args=["--mathml", "--wrap=none", "--quiet"])
    for (key, node), drawn in zip(found.items(), BeautifulSoup(page, "html.parser").find_all("p"), strict=True):
        if not drawn.math:
            logger.warning("pandoc cannot read the formula %s", node.astext(), location=node)
        mathml[key] = drawn.decode_contents()


def kind(node: nodes.Node) -> str:
    return "InlineMath" if isinstance(node, nodes.math) else "DisplayMath"


def write_formula(writer: Any, node: nodes.Element) -> None:
    writer.body.append(mathml[kind(node), node.astext()])
    raise nodes.SkipNode


# Docstrings are text with `code`: reStructuredText but for the characters that mean something else there
def prepare_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes those characters, and keeps the end of a line that had room for the next one's first word."""
    kept = []
    for line, following in zip(lines, [*lines[1:], ""]):
        kept.append("".join(part if part.startswith("`") else re.sub(r"([\\*_|@])", r"\\\1", part)
                            for part in re.split(r"(`[^`]*`)", line)))
        if line and following[:1].strip() and len(f"{line} {following.split()[0]}") < 100:
            kept.append("")
    lines[:] = kept


def hide_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returned: str) -> Any:
    """No signature of a dataclass: below it stand its fields."""
    return ("", None) if dataclasses.is_dataclass(obj) else None


# The front page: a card for each page that docs/contents.md names, with its first paragraph and one of its pictures
PICTURES = {"02_diffusion_from_scratch": 4, "04_items_as_distributions": 4, "05_the_approximator": 5,
            "07_reverse_and_rounding": 1, "08_offset_noise": 1, "09_cross_attention": 1, "report": 3}


def front(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    if pagename == "index":
        context["groups"] = [
            (toctree["caption"], [card(app, docname, title) for title, docname in toctree["entries"]])
            for toctree in app.env.get_doctree(root_doc).findall(addnodes.toctree)]


def card(app: Sphinx, docname: str, title: str | None) -> dict[str, str | None]:
    page = app.env.get_doctree(docname)
    pictures = [app.builder.images[node["uri"]] for node in page.findall(nodes.image) if node["uri"] in app.builder.images]
    chosen = PICTURES.get(Path(docname).name, 0)
    opening = next((node for node in page.findall(nodes.paragraph) if not re.search("[←→]", node.astext())), [])
    text = "".join(mathml.get(("InlineMath", node.astext())) or html.escape(node.astext())
                   for node in opening if not re.match("What you", node.astext()))
    return {"page": docname, "title": title or app.env.titles[docname].astext(), "text": text[:1].upper() + text[1:],
            "picture": pictures[chosen] if chosen < len(pictures) else None}


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("source-read", prepare)
    app.connect("env-check-consistency", draw_formulas)
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("autodoc-process-signature", hide_fields)
    app.connect("html-collect-pages", source_pages)
    app.connect("html-page-context", front)
