"""Sphinx configuration."""

from dataclasses import fields
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from latex2mathml.converter import convert

import faiss_distill
from faiss_distill import DistillConfig
from faiss_distill.config import field_notes
from faiss_distill.index.registry import FAMILIES, REFUSED
from faiss_distill.losses import LOSSES

project = "faiss_distill"
author = "the faiss_distill authors"
copyright = "2026, the faiss_distill authors"
release = version = faiss_distill.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "matplotlib.sphinxext.plot_directive",
    "sphinx_gallery.gen_gallery",
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"faiss_distill {version}"
html_static_path = ["_static"]
plot_include_source = plot_html_show_source_link = plot_html_show_formats = False
plot_formats = [("png", 150)]
exclude_patterns = ["_build", "sg_execution_times.rst", "tutorials/*.rst"]
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "run_stale_examples": True,
    "show_signature": False,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 3600,
    "remove_config_comments": True,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "default_thumb_file": str(Path(__file__).parent / "_static" / "recall.png"),
}
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
            lines += [f"     - {family.adapter.traits.changes}"]
        lines += ["", "Not these, which say so:", ""]
        lines += [f"- ``{kind.__name__}``: {why}" for kind, why in REFUSED.items()]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="registry"), self.content_offset, node)
        return node.children


class ConfigTable(Directive):
    """The fields of DistillConfig, from the class and its docstring."""

    def run(self):
        notes = field_notes()
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 16 14 48", ""]
        lines += ["   * - field", "     - type", "     - default", "     - what it does"]
        for field in fields(DistillConfig):
            default = getattr(field.default, "value", field.default)
            lines += [f"   * - ``{field.name}``", f"     - ``{field.type}``", f"     - ``{default!r}``"]
            lines += [f"     - {notes[field.name]}"]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="DistillConfig"), self.content_offset, node)
        return node.children


class LossReference(Directive):
    """Every loss of the registry."""

    def run(self):
        lines = [line for name in LOSSES for line in (f".. autofunction:: faiss_distill.losses.{name}", "")]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="LOSSES"), self.content_offset, node)
        return node.children


def setup(app):
    app.add_directive("support-table", SupportTable)
    app.add_directive("config-table", ConfigTable)
    app.add_directive("loss-reference", LossReference)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-read", drop_mail_links)
