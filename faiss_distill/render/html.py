"""Results as pages: one file, with all that it shows in it, for a browser with or without a network."""

from __future__ import annotations

from html import escape
from pathlib import Path

from faiss_distill.files import replacing
from faiss_distill.render.content import Page, Picture, Section
from faiss_distill.render.plot import as_svg
from faiss_distill.render.table import cell_text

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --line: #d8d8de; --soft: #6a6a73; --good: #1d7a3f;
  --bad: #a33327 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6ea; --paper: #17171a; --line: #3a3a42; --soft: #a0a0aa;
  --good: #5fc586; --bad: #ef8a7c } }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.3; border-left: .35rem solid var(--soft); padding-left: .8rem }
h1.good { border-color: var(--good) } h1.bad { border-color: var(--bad) }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p, li { margin: .3rem 0 } p.note { color: var(--soft); font-size: .92rem }
.wide { overflow-x: auto } .panels { display: flex; flex-wrap: wrap; gap: 1rem } .panels svg { flex: 1 1 22rem;
  max-width: 36rem; min-width: 0; width: 100%; height: auto; font-family: system-ui, sans-serif }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th.left, td.left { text-align: left; white-space: normal }
th { color: var(--soft); font-weight: 600 }
@media print { body { margin: 0; max-width: none; font-size: 11px } h2, .panels, table { break-inside: avoid } }
"""


def as_page(page: Page, path: str | Path | None = None) -> str:
    """A page in HTML, also written to ``path`` if one is given.

    Raises:
        MissingDependencyError: matplotlib is not installed, and there are pictures.
    """
    kind = {True: " class=good", False: " class=bad", None: ""}[page.good]
    body = "\n".join(_picture(part) if isinstance(part, Picture) else as_html(part) for part in page.parts)
    written = (
        f"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        f'<meta name=viewport content="width=device-width, initial-scale=1">\n<title>{escape(page.title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1{kind}>{escape(page.verdict)}</h1>\n{body}\n</html>\n"
    )
    if path is not None:
        with replacing(path) as new:
            new.write_text(written, encoding="utf-8")
    return written


def as_html(section: Section) -> str:
    r"""A section as elements of HTML.

    Examples:
        >>> as_html(Section("Cities & towns", notes=["two of them"]))
        '<h2>Cities &amp; towns</h2>\n<p class=note>two of them</p>'
    """
    parts = [f"<h2>{escape(section.title)}</h2>"] if section.title else []
    if section.rows:
        parts.append(f"<div class=wide><table>{_head(section)}{_rows(section)}</table></div>")
    parts += [f"<p class=note>{escape(note)}</p>" for note in section.notes]
    if section.items:
        parts.append("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in section.items) + "</ul>")
    return "\n".join(parts)


def _head(section: Section) -> str:
    if not any(column.name for column in section.columns):
        return ""
    cells = (f"<th{' class=left' * column.left}>{escape(column.name)}</th>" for column in section.columns)
    return f"<tr>{''.join(cells)}</tr>"


def _rows(section: Section) -> str:
    rows = ""
    for row in section.rows:
        cells = (
            f"<td{' class=left' * column.left}>{escape(cell_text(cell, column))}</td>"
            for cell, column in zip(row, section.columns, strict=True)
        )
        rows += f"<tr>{''.join(cells)}</tr>"
    return rows


def _picture(picture: Picture) -> str:
    title = f"<h2>{escape(picture.title)}</h2>\n" if picture.title else ""
    caption = f"<p class=note>{escape(picture.caption)}</p>\n" if picture.caption else ""
    panels = "".join(map(as_svg, picture.panels))
    return f"{title}<div class=panels>{panels}</div>\n{caption}"
