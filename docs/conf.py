"""Sphinx configuration."""

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from latex2mathml.converter import convert

import faiss_distill
from faiss_distill.adapters import FAMILIES, REFUSED

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


class SupportTable(Directive):
    """The families that can be tuned, and why others can't, from the registry."""

    def run(self):
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            "",
            "   * - class",
            "     - for example",
            "     - what changes",
        ]
        for kind, family in FAMILIES.items():
            example = f"``{family.example}``" if family.example else "of any of the others"
            lines += [f"   * - ``{kind.__name__}``", f"     - {example}"]
            lines += [f"     - {family.adapter.changes}"]
        lines += ["", "Not these, which say so:", ""]
        lines += [f"- ``{kind.__name__}``: {why}" for kind, why in REFUSED.items()]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="registry"), self.content_offset, node)
        return node.children


def setup(app):
    app.add_directive("support-table", SupportTable)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-read", drop_mail_links)
