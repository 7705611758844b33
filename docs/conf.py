"""Sphinx configuration."""

from docutils import nodes
from latex2mathml.converter import convert

import faiss_distill

project = "faiss_distill"
author = "the faiss_distill authors"
copyright = "2026, the faiss_distill authors"
release = version = faiss_distill.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"faiss_distill {version}"
html_static_path = ["_static"]
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
nitpick_ignore_regex = [
    # other projects' names: the pages are built without the network
    ("py:.*", r"(numpy|np|torch|faiss|collections|pathlib|enum|typing|argparse)\..*"),
    ("py:.*", r"(NDArray|Float32|Int64|Path|Sequence|Any|Enum|optional)"),
    ("py:class", r"faiss_distill\.(state|evaluation|config)\..*"),
]


def visit_math(self, node):
    """Math as MathML, which browsers draw without scripts or the network."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    style = "margin: 1em 0; padding: 0.4em 0; overflow: auto hidden"
    self.body.append(f'<div style="{style}">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def drop_mail_links(app, doctree):
    """Keep docutils from taking overlap@10 for an address."""
    for link in list(doctree.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(nodes.Text(link.astext()))


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-read", drop_mail_links)
