"""What the pages are made of beyond Sphinx: tables from the registry, text tables, the command line, formulas."""

import html
import json
import re
import textwrap
from dataclasses import fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from latex2mathml.converter import convert
from sphinx.util.docutils import SphinxDirective
from sphinx_gallery.directives import imgsgnode
from sphinxarg.ext import ArgParseDirective

from faiss_distill import DistillConfig
from faiss_distill.config import field_notes
from faiss_distill.data.formats import FORMATS
from faiss_distill.index.registry import FAMILIES, REFUSED
from faiss_distill.losses import LOSSES


def visit_math(self, node):
    """Math as MathML, which browsers draw without scripts or the network."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    self.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
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


def mark_options(app, doctree):
    """Let the style sheet know which literals are options."""
    for literal in doctree.findall(nodes.literal):
        if re.fullmatch(r"--?\w[\w-]*", literal.astext()):
            literal["classes"].append("option")


def frame_pictures(app, doctree):
    """Put each picture into a box, in which it can be scrolled on a telephone."""
    if app.env.docname == "auto_tutorials/index":
        return
    for image in list(doctree.findall(lambda node: isinstance(node, nodes.image | imgsgnode))):
        box = nodes.container(classes=["picture"])
        image.replace_self(box)
        box += image


def family_title(kind, family):
    """The group of a class that can be tuned, which its row in the registry and faiss's own attributes tell."""
    traits = family.adapter.traits
    if family.example is None:
        return "Several indexes"
    if traits.codebooks is None:
        title = "Codes by faiss's own rules"
    elif hasattr(kind, "pq"):
        title = "Product quantizers"
    elif hasattr(kind, "aq"):
        title = "Additive quantizers"
    else:
        title = "Other codebooks"
    return f"{title}, {'with' if traits.lists else 'without'} lists"


class SupportTable(Directive):
    """The families that can be tuned, group by group, and why others can't, from the registry."""

    def run(self):
        groups = {}
        for kind, family in FAMILIES.items():
            changes = groups.setdefault(family_title(kind, family), {})
            changes.setdefault(family.adapter.traits.changes, []).append((kind, family.example))
        lines = ["Under each heading is what tuning changes; beside each class is an example of a factory string.", ""]
        for title, changes in groups.items():
            lines += [f".. rubric:: {title}", ""]
            for what, members in changes.items():
                lines += [f"{what[0].upper()}{what[1:]}.", ""]
                lines += [".. list-table::", "   :class: stacked", "   :width: 100%", "   :widths: 60 40", ""]
                for kind, example in members:
                    shown = f"``{example}``" if example else "of any of the others"
                    lines += [f"   * - ``{kind.__name__}``", f"     - {shown}"]
                lines += [""]
        lines += [".. rubric:: Refused, with a message that says why", ""]
        lines += [f"- ``{kind.__name__}``: {why}" for kind, why in REFUSED.items()]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="registry"), self.content_offset, node)
        return node.children


class FormatTable(Directive):
    """The formats of vectors, from the registry."""

    def run(self):
        lines = [".. list-table::", "   :class: stacked", "   :width: 100%", "   :widths: 38 34 28"]
        lines += ["   :header-rows: 1", ""]
        rows = [("path", "what it holds", "how it is read")]
        for row in FORMATS:
            names = ", ".join(f"``{suffix}{':' * bool(row.key)}{row.key}``" for suffix in row.suffixes)
            extra = f" (extra ``{row.extra}``)" if row.extra else ""
            read = "as a whole" if row.read == "whole" else row.read
            rows.append((names, row.holds + (", a folder" if row.folder else ""), read + extra))
        for row in rows:
            lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
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


class TextTable(SphinxDirective):
    """A table as a benchmark printed it, from a file or as the content; only sentences at the end of lines wrap."""

    optional_arguments = 1
    has_content = True
    longest = 120

    def run(self):
        lines = list(self.content)
        if self.arguments:
            self.env.note_dependency(self.arguments[0])
            lines = (Path(self.env.srcdir) / self.arguments[0]).read_text(encoding="utf-8").splitlines()
        lines = [part for line in lines for part in self.wrapped(line)]
        text = html.escape("\n".join(lines))
        style = f"--columns: {max(map(len, lines))}"  # the style sheet makes the letters as small as they must be
        page = f'<div class="text-table" style="{style}"><pre tabindex="0">{text}</pre></div>'
        return [nodes.raw("", page, format="html")]

    def wrapped(self, line):
        sentence = line.split("  ")[-1].lstrip()
        start = len(line) - len(sentence)
        if len(line) <= self.longest or sentence.count(" ") < 8:
            return [line]
        first, *others = textwrap.wrap(sentence, self.longest - start)
        return [line[:start] + first, *(" " * start + other for other in others)]


class SizeTable(SphinxDirective):
    """What building and tuning took by the size of the corpus, from a table of ``benchmarks.scale``."""

    required_arguments = 1

    def run(self):
        self.env.note_dependency(self.arguments[0])
        head, *lines = (Path(self.env.srcdir) / self.arguments[0]).read_text(encoding="utf-8").splitlines()
        assert head.split()[:6] == ["n", "d", "build", "s", "tuning", "s"], head
        rows = ["vectors", "build", "tuning", "peak memory"], *self.measured(lines)
        text = [".. list-table::", "   :header-rows: 1", "   :widths: 35 20 20 25", ""]
        for row in rows:
            text += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
        node = nodes.container()
        self.state.nested_parse(StringList(text, source=self.arguments[0]), self.content_offset, node)
        return node.children

    def measured(self, lines):
        for line in lines:
            if not line.startswith("growth"):
                n, d, _, build, tuning, *_, peak = line.partition("→")[0].split()[:-1]
                yield f"{int(n):,} × {d}", f"{float(build):.0f} s", f"{float(tuning):.0f} s", f"{int(peak):,} MB"


class TrialTable(SphinxDirective):
    """What was tried for each promise, and what came of it: lines of three parts, with two spaces between them.

    Of a promise with a colon, what follows the colon belongs to what was tried.
    """

    required_arguments = 1

    def run(self):
        self.env.note_dependency(self.arguments[0])
        text = (Path(self.env.srcdir) / self.arguments[0]).read_text(encoding="utf-8")
        rows = [line.split("  ", 2) for line in text.splitlines()]
        lines = []
        for promise, trials in groupby(rows, key=lambda row: row[0].partition(": ")[0]):
            lines += [f".. rubric:: {promise[0].upper()}{promise[1:]}", "", ".. list-table::"]
            lines += ["   :class: stacked", "   :width: 100%", "   :widths: 45 55", ""]
            for name, tried, found in trials:
                more = name.removeprefix(promise).removeprefix(": ")
                lines += [f"   * - {more}: {tried}" if more else f"   * - {tried}", f"     - {found}"]
            lines += [""]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, node)
        return node.children


class StoreTable(SphinxDirective):
    """The stores of other libraries that were tuned, of a file that ``benchmarks.stores`` has written."""

    required_arguments = 1

    def run(self):
        self.env.note_dependency(self.arguments[0])
        rows = json.loads((Path(self.env.srcdir) / self.arguments[0]).read_text(encoding="utf-8"))
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 20 26 34 20", ""]
        lines += ["   * - library", "     - tested with", "     - the line", "     - overlap@10, and 95 % of the gain"]
        for row in rows:
            lines += [
                f"   * - {row['store']}",
                f"     - {row['package']} {row['version']}",
                f"     - ``{row['line']}``",
            ]
            low, high = row["gain"]
            lines += [f"     - {row['before']:.3f} → {row['after']:.3f} ({low:+.3f} to {high:+.3f})"]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, node)
        return node.children


class CommandLine(ArgParseDirective):
    """The parser's own pages, with each command's examples first, and with options and values as literals."""

    titles: ClassVar = {
        "Sub-commands": "Commands",
        "Positional Arguments": "Arguments",
        "Named Arguments": "Options",
        "options of the tuning": "Options of the tuning",
    }

    def run(self):
        items = [item for parsed in super().run() for item in unnested(parsed)]
        sections = [item for item in items if isinstance(item, nodes.section)]
        page = nodes.section("", *(item for item in items if item not in sections))
        page += [section for section in sections if section[0].astext() != "commands"]  # a list of the titles below
        for section in page.findall(nodes.section):
            examples_first(section)
        for title in page.findall(nodes.title):
            title[0] = nodes.Text(self.titles.get(title.astext(), title.astext()))
        for text in list(page.findall(nodes.Text)):
            if not isinstance(text.parent, nodes.FixedTextElement | nodes.literal | nodes.option_string | nodes.title):
                text.parent.replace(text, with_literals(text))
        return page.children


def unnested(node):
    """The paragraphs within a paragraph, which HTML does not have, or the node itself."""
    nested = isinstance(node, nodes.paragraph) and isinstance(node[0], nodes.paragraph)
    return list(node.children) if nested else [node]


def examples_first(section):
    """Move the examples of a command before its usage, as a session in a shell."""
    for paragraph in list(section.children):
        if paragraph.astext() != "examples:":
            continue
        examples = paragraph.next_node(nodes.literal_block, descend=False, siblings=True)
        usage = section.first_child_matching_class(nodes.literal_block)
        section[usage]["language"] = "text"
        section.remove(paragraph)
        section.remove(examples)
        session = "\n".join(folded(line) for line in examples.astext().splitlines())
        section.insert(usage, nodes.literal_block(session, session, language="console"))


def folded(command, width=88):
    """A command with its prompt, on several lines if it is long."""
    lines = ["$"]
    for part in re.split(r" (?=--?\w)", command):
        if len(lines[-1]) + len(part) > width:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join(lines)


def with_literals(text):
    """Text as nodes, in which options and what is in quotes are literals: no dash is joined, no quote turned."""
    parts = re.split(r"((?<![\w-])--?[a-zA-Z][\w-]*|\"[^\"]+\")", text.astext())
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


class LossReference(Directive):
    """Every loss of the registry."""

    def run(self):
        lines = [line for name in LOSSES for line in (f".. autofunction:: faiss_distill.losses.{name}", "")]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="LOSSES"), self.content_offset, node)
        return node.children


def setup(app):
    app.add_directive("support-table", SupportTable)
    app.add_directive("format-table", FormatTable)
    app.add_directive("store-table", StoreTable)
    app.add_directive("config-fields", ConfigFields)
    app.add_directive("loss-reference", LossReference)
    app.add_directive("text-table", TextTable)
    app.add_directive("trial-table", TrialTable)
    app.add_directive("size-table", SizeTable)
    app.add_directive("command-line", CommandLine)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("doctree-read", drop_mail_links)
    app.connect("autodoc-process-signature", mend_signature)
    app.connect("doctree-read", mark_options)
    app.connect("doctree-read", frame_pictures)
