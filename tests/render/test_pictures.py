import pytest

from faiss_distill import InputError
from faiss_distill.render.content import Panel, Picture, Series
from faiss_distill.render.plot import STYLES, draw


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The figure of a picture."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (figures.append(self), path.touch()))

    def figure(*panels, **titles):
        draw(Picture(panels, **titles), tmp_path / "p.png")
        assert (tmp_path / "p.png").exists()
        return figures.pop()

    return figure


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_panels_side_by_side(drawn, count):
    figure = drawn(*[Panel(f"x{i}", "y", [Series("after", [1, 10], [i, 2])]) for i in range(count)], title="title")
    assert [ax.get_xlabel() for ax in figure.axes] == [f"x{i}" for i in range(count)]
    assert [list(ax.lines[0].get_ydata()) for ax in figure.axes] == [[i, 2] for i in range(count)]
    assert figure.get_suptitle() == "title"
    assert all(ax.get_xscale() == "log" for ax in figure.axes)
    assert figure.axes[0].get_legend() is None


@pytest.mark.parametrize("role", STYLES)
def test_names_labels_and_lines(drawn, role):
    joined = Series(role, [1, 10], [1, 2], name="this", labels=["a", "b"])
    (ax,) = drawn(Panel("x", "y", [joined, Series(role, [1, 10], [2, 3], joined=False)]), caption="caption").axes
    assert texts(ax) == ["a", "b"]
    assert [line.get_linestyle() != "None" for line in ax.lines] == [True, False]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this"]
    assert ax.figure.get_suptitle() == "caption"


def test_labels_that_would_cover_each_other(drawn):
    def labelled(role):
        series = Series(role, [1, 1.0001, 1000], [1, 1.0001, 2], labels=["first", "covered", "far"])
        return texts(drawn(Panel("x", "y", [series])).axes[0])

    assert labelled("front") == labelled("all") == ["first", "far"]
    assert labelled("after") == ["first", "covered", "far"]


def test_a_path_that_cannot_be_drawn_into(tmp_path):
    with pytest.raises(InputError, match="plot: expected a file ending in"):
        draw(Picture([Panel("x", "y", [])]), tmp_path / "p.txt")
    assert not any(tmp_path.iterdir())
