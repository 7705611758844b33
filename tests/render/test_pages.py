"""Pages: all in one file, with everything that a result has to show."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import faiss
import numpy as np
import pytest
from conftest import QUICK, N, core
from render.test_results import RESULTS

from faiss_distill import Description, DistillReport, Evaluation, MissingDependencyError, OperatingPoints, distill
from faiss_distill.cli import main
from faiss_distill.render.content import Column, Page, Picture, Section
from faiss_distill.render.html import as_page

FETCHES = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Elements(HTMLParser):
    """What a page is made of: names of elements, what they would fetch, text, and whether all are closed."""

    def __init__(self, page):
        super().__init__()
        self.names, self.fetched, self.text, self.open = [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.fetched += [value for name, value in attrs if name in FETCHES and not value.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(params=RESULTS, ids=lambda kind: kind.__name__)
def result(request):
    return RESULTS[request.param]()


def test_a_page_has_all_in_it(result, tmp_path):
    page = result.to_html(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == page
    elements = Elements(page)
    assert elements.open == []
    assert elements.fetched == []
    assert not {"script", "link", "iframe", "img"} & set(elements.names)
    assert not re.search(r"url\((?!#)|@import", page)
    assert result.verdict in elements.text
    parts = result.page().parts
    assert elements.names.count("svg") == sum(len(p.panels) for p in parts if isinstance(p, Picture))
    for part in parts:
        if isinstance(part, Section):
            texts = [part.title, *part.notes, *part.items, *(column.name for column in part.columns)]
            assert all(text in elements.text for text in texts)
        else:
            assert all(text in elements.text for text in (part.title, part.caption))
            assert all(panel.x in elements.text and panel.y in elements.text for panel in part.panels)


def test_a_picture_has_the_colors_of_the_page(result):
    page = result.to_html()
    assert "#010203" not in page
    assert ("currentColor" in page) == ("<svg" in page)
    assert page == result.to_html()


def test_what_is_in_a_text_is_no_markup():
    section = Section("<i>", notes=["&amp;"], columns=[Column("<u>")], rows=[["</table>"]], items=["<s>"])
    elements = Elements(as_page(Page("<title>", "a < b & c", [section])))
    assert not {"i", "u", "s"} & set(elements.names)
    assert elements.names.count("title") == elements.names.count("table") == 1
    assert all(text in elements.text for text in ("<title>", "a < b & c", "<i>", "&amp;", "<u>", "</table>", "<s>"))


def test_in_a_notebook_and_in_a_debugger(result):
    assert repr(result) == f"<{type(result).__name__}: {result.verdict}>"
    assert len(repr(result)) < 300
    shown = Elements(result._repr_html_())
    assert shown.open == []
    assert "svg" not in shown.names
    for section in result.sections():
        assert all(text in shown.text for text in (section.title, *section.notes, *section.items))


@pytest.mark.parametrize("kind", [DistillReport, OperatingPoints], ids=lambda kind: kind.__name__)
def test_pictures_need_matplotlib(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"matplotlib, got none; pip install 'faiss-distill\[plot\]'"):
        RESULTS[kind]().to_html()


@pytest.mark.parametrize("given", ["queries", "validation_queries", "documents"])
def test_who_won_and_lost_and_how_long_lists_are(built, data, given):
    """By a search of the very queries that the report says."""
    index, x, array = built(), data.documents[:N], data.queries
    sizes = [list_sizes(index)]
    options = {"validation_queries": data.queries[1000:]} if given == "validation_queries" else {}
    queries = {"queries": data.queries, "validation_queries": data.queries[:1000], "documents": None}[given]
    report = distill(index, x, queries, **QUICK, **options)
    assert report.kept
    asked = {"queries": array, "validation_queries": array[1000:], "documents": x}[given][report.held_out]
    core(index).nprobe = QUICK["nprobe"]
    skip = 1 if given == "documents" else 0
    found, truth = (
        searched.search(asked, 10 + skip)[1] for searched in (index, flat(x))
    )  # a document finds itself, which does not count
    for i, row in enumerate(report.held_out):
        own = [set(ids[ids != row][:10] if skip else ids) for ids in (found[i], truth[i])]
        assert report.after.overlap[i] == pytest.approx(len(own[0] & own[1]) / 10, abs=0.101)
    sizes.append(list_sizes(index))
    np.testing.assert_array_equal(report.list_sizes, sizes)
    won = int((report.after.overlap > report.before.overlap).sum())
    assert f"{won} won" in Elements(report.to_html()).text


def flat(x):
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    return index


def list_sizes(index):
    lists = core(index).invlists
    return [lists.list_size(i) for i in range(lists.nlist)]


def test_the_command_line_writes_them(tmp_path, built, data, capsys):
    faiss.write_index(built(), str(tmp_path / "i.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries)
    inputs = [str(tmp_path / "i.faiss"), str(tmp_path / "x.npy"), "--queries", str(tmp_path / "q.npy")]
    page, out = tmp_path / "r.html", str(tmp_path / "o.faiss")
    quick = ["--epochs", "1", "--nprobe", "4"]
    assert main(["tune", *inputs, *quick, "-o", out, "--html", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {out}, and the page to {page}\n")
    assert "Gain by query" in page.read_text(encoding="utf-8")
    assert main(["points", *inputs, "--html", str(page)]) == 0
    assert Elements(page.read_text(encoding="utf-8")).names.count("svg") == 2
    assert main(["tune", *inputs, *quick, "-o", out, "--html", inputs[1]]) == 2
    assert "--html: expected another file than the inputs" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "eval"])
def test_the_command_line_writes_what_it_prints(tmp_path, built, data, capsys, monkeypatch, command):
    """Without matplotlib, which they don't need; and never in place of an input."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    faiss.write_index(built(), str(tmp_path / "i.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries[:100])
    index, x, q = (str(tmp_path / name) for name in ("i.faiss", "x.npy", "q.npy"))
    given = [index, x, "--queries", q] if command == "eval" else [index]
    page = tmp_path / "r.html"
    assert main([command, *given, "--json", "--html", str(page)]) == 0
    said = capsys.readouterr()
    assert said.err == f"wrote the page to {page}\n"
    kind = Evaluation if command == "eval" else Description
    result = kind.from_json(said.out)
    assert page.read_text(encoding="utf-8").replace(" on 100 queries", "") == result.to_html()
    before = [(tmp_path / name).read_bytes() for name in ("i.faiss", "x.npy", "q.npy")]
    for taken in [path for path in given if path != "--queries"]:
        assert main([command, *given, "--html", taken]) == 2
        assert "--html: expected another file than the inputs" in capsys.readouterr().err
    assert [(tmp_path / name).read_bytes() for name in ("i.faiss", "x.npy", "q.npy")] == before
    (tmp_path / "other.html").hardlink_to(page)
    assert main([command, *given, "--html", str(page)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main([command, *given, "--html", str(page), "--force"]) == 0
    assert main([command, *given, "--html", str(tmp_path / "no" / "r.html")]) == 2
    assert "--html: expected a folder that exists" in capsys.readouterr().err


def test_inspect_needs_no_torch(tmp_path, built):
    faiss.write_index(built(), str(tmp_path / "i.faiss"))
    code = "import sys; from faiss_distill.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = ["inspect", str(tmp_path / "i.faiss"), "--html", str(tmp_path / "r.html")]
    subprocess.run([sys.executable, "-c", code, *command], check=True)
    assert "can be tuned" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(tmp_path, width):
    """No error, nothing wider than the window, all pictures as large as they should be."""
    page = RESULTS[DistillReport]().to_html()
    measure = f"""<style>html {{ width: {width}px }}</style><script>
      const right = e => Math.round(e.getBoundingClientRect().right);
      const svgs = [...document.querySelectorAll("svg")].map(s => Math.round(s.getBoundingClientRect().width));
      document.title = JSON.stringify([Math.max(...[...document.body.children].map(right)) <= {width}, svgs]);
    </script>"""
    (tmp_path / "r.html").write_text(page.replace("</html>", f"{measure}</html>"), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,2000", "--dump-dom"]
    run = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "r.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    fits, widths = re.search(r"<title>\[(true|false),\[([\d,]+)\]\]</title>", run.stdout).groups()
    assert fits == "true"
    assert len(widths.split(",")) == page.count("<svg")
    assert all(300 < int(w) <= width for w in widths.split(","))
