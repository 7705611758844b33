import pytest
from hypothesis import given
from hypothesis import strategies as st

from faiss_distill import DistillConfig, InputError
from faiss_distill.mixture import Mixture, Source

sizes = st.integers(1, 300)


@st.composite
def terms(draw):
    kind, depth = draw(st.sampled_from(["gt", "top", "hard", "random"])), draw(sizes)
    if kind == "random":
        return f"random{depth}", Source("random", depth, None)
    sampled = draw(st.none() | st.integers(1, depth))
    text = f":{sampled}" if sampled else ""
    return (
        (f"gt{text}", Source("gt", 0, sampled))
        if kind == "gt"
        else (f"{kind}{depth}{text}", Source(kind, depth, sampled))
    )


@given(st.lists(terms(), min_size=1, max_size=4), st.booleans(), st.sampled_from(["+", " + ", "  +\t"]))
def test_what_is_written_is_what_is_read(written, in_batch, plus):
    names = [text for text, _ in written] + (["in_batch"] if in_batch else [])
    mixture = Mixture.parse(plus.join(names))
    assert mixture == Mixture(tuple(source for _, source in written), in_batch)
    for kind in ("top", "hard"):
        assert mixture.depth(kind) == max([s.depth for s in mixture.sources if s.kind == kind], default=0)
        assert mixture.has(kind) == any(s.kind == kind for s in mixture.sources)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bm25", "expected in_batch, gt, gt:S, topK, .* got 'bm25' in 'bm25'"),
        ("in_batch + top", "got 'top' in"),
        ("in_batch + top0", "got 'top0' in"),
        ("in_batch + top10:0", "got 'top10:0' in"),
        ("in_batch + top10 +", "got '' in"),
        ("", "got '' in ''"),
        ("top10:11", "at most K of topK and hardK, got 'top10:11'"),
        ("random10:5", "expected randomN, .* got 'random10:5'"),
        ("in_batch", "expected a source beside in_batch"),
        ("top100:1", "expected others to rank a document against, got 'top100:1'; add in_batch"),
        ("gt:1", "expected others to rank a document against, got 'gt:1'; add in_batch"),
        (10, "got 10"),
        (None, "got None"),
    ],
)
def test_what_is_not_in_the_notation(text, message):
    with pytest.raises(InputError, match=f"^candidates: .*{message}"):
        DistillConfig(candidates=text)


def test_one_document_can_be_rebuilt_if_not_ranked():
    assert DistillConfig(candidates="random1", loss="reconstruction").mixture.single
    assert not DistillConfig(candidates="in_batch + random1").mixture.single
    assert not DistillConfig(candidates="gt").mixture.single


def test_the_teacher_goes_as_deep_as_the_candidates():
    assert DistillConfig(candidates="in_batch + top200:1").depth == 200
    assert DistillConfig(candidates="hard500:1 + top20").depth == 100
