"""Sphinx configuration."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from latex2mathml.converter import convert

import faiss_distill
from faiss_distill import DistillConfig, typing
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
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: f"~faiss_distill.typing.{name}" for name in typing.__all__} | {
    "Float32": "~faiss_distill.state.Float32",
    "Int64": "~faiss_distill.state.Int64",
    # imported for type checkers alone
    "LinearTransform": "~faiss.LinearTransform",
    "ProcessGroup": "~torch.distributed.ProcessGroup",
    "SentenceTransformer": "~sentence_transformers.SentenceTransformer",
}
python_maximum_signature_line_length = 90
napoleon_use_ivar = True
nitpick_ignore_regex = [
    # other projects' names: the pages are built without the network
    ("py:.*", r"(numpy|np|torch|faiss|sentence_transformers|collections|pathlib|enum|typing|argparse)\..*"),
    ("py:.*", r"(NDArray|Path|Sequence|Any|Enum|nn\.Module|ProcessGroup|Learn|Assignment|Encoding|optional)"),
    ("py:class", r"faiss_distill\.(evaluation|config|learning|tuning\.gate)\..*"),
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


def mend_signature(app, what, name, obj, options, *signature):
    """No signature of a dataclass, whose fields are listed; type aliases in unions, which Sphinx spoils, by name."""
    if what == "class" and is_dataclass(obj):
        return "", None
    return tuple(part and re.sub(r"TypeAliasForwardRef\('([\w.~]+)'\)", r"\1", part) for part in signature)


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


class ConfigFields(Directive):
    """The fields of DistillConfig, from the class and its docstring."""

    def run(self):
        notes = field_notes()
        lines = []
        for field in fields(DistillConfig):
            default = getattr(field.default, "value", field.default)
            lines += [f".. py:attribute:: {field.name}", f"   :type: {field.type}", f"   :value: {default!r}"]
            lines += ["", f"   {notes[field.name]}", ""]
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
    app.add_directive("config-fields", ConfigFields)
    app.add_directive("loss-reference", LossReference)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-read", drop_mail_links)
    app.connect("autodoc-process-signature", mend_signature)
