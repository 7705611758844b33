"""The README's code, run as it stands on small files of the names it uses."""

import contextlib
import functools
import pickle
import re
import shlex
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import faiss
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from conftest import QUICK
from writers import WRITERS

import faiss_distill
from faiss_distill import typing
from faiss_distill.cli import main

DOCS = Path(__file__).parent.parent / "docs"
OPTIONS = (DOCS / "options.rst").read_text(encoding="utf-8")
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def _files(tmp_path, monkeypatch, built, data):
    monkeypatch.chdir(tmp_path)
    for name in ("wiki.ivfpq.faiss", "wiki.faiss"):
        index = built()
        index.nprobe = 4  # "with the nprobe you search with"
        faiss.write_index(index, name)
    np.save("wiki.npy", data.documents[:2000])
    np.save("log.npy", data.queries[:1500])
    np.save("test.npy", data.queries[1500:])
    np.save("valid.npy", data.queries[1500:1700])


@pytest.mark.usefixtures("_files")
def test_python_block(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(block, {})
    assert "Kept: overlap@10 at nprobe 16 rose" in capsys.readouterr().out


@pytest.mark.usefixtures("_files")
def test_command_lines(capsys):
    lines = re.findall(r"^faiss-distill (.*?)(?: +#.*)?$", README, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["inspect", "tune", "eval", "points"]
    for line in lines:
        assert main(shlex.split(line)) == 0
    assert "can be tuned" in capsys.readouterr().out
    assert "Gain by query" in Path("report.html").read_text(encoding="utf-8")


class Frame(dict):
    """What is asked of a pandas one."""

    def to_numpy(self):
        return self["embedding"]


@pytest.mark.usefixtures("_files")
def test_what_is_said_of_files(data, built, capsys):
    text, x = (DOCS / "files.rst").read_text(encoding="utf-8"), data.documents[:2000]
    Path("corpus").mkdir()
    Path("parts").mkdir()
    for i, part in enumerate(np.array_split(x, 12)):
        np.save(f"corpus/part_{i}.npy", part)
        np.save(f"parts/{i}.npy", part)
    WRITERS[".fbin"](Path("a.fbin"), x[:700])
    WRITERS[".fbin"](Path("b.fbin"), x[700:])
    WRITERS[".fbin"](Path("log.fbin"), data.queries)
    WRITERS[".parquet"](Path("wiki.parquet"), x)
    for name in ("sift.hdf5", "log.hdf5"):
        with h5py.File(name, "w") as file:
            file.update({"train": x, "test": data.queries})
    flat = faiss.IndexFlatIP(64)
    flat.add(x)
    faiss.write_index(flat, "exact.faiss")
    np.savetxt("x.csv", x, delimiter=",")
    Path("x.pkl").write_bytes(pickle.dumps(x))
    known = {
        "faiss": faiss, "np": np, "index": built(), "frame": {"embedding": Frame(embedding=list(x))},
        "distill": functools.partial(faiss_distill.distill, epochs=1, nprobe=4),
    }  # fmt: skip
    blocks = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", text)
    assert len(blocks) == 3
    for block in blocks:
        exec(textwrap.dedent(block), known)
    assert known["report"].kept
    assert faiss.read_index("tuned.faiss").ntotal == 2000
    np.testing.assert_allclose(np.load("x.npy"), x, atol=1e-6)
    lines = re.findall(r"\$ faiss-distill (.*)", text)
    assert len(lines) == 3
    ids = np.random.default_rng(0).permutation(2000)
    Path("pages").mkdir()
    for i, part in enumerate(np.array_split(ids, 11)):
        pq.write_table(pa.table({"doc_id": part, "vector": list(x[part])}), f"pages/{i}.parquet")
    for line in lines:
        line = line.replace("parquet:embedding", "parquet:vector")
        assert main([*shlex.split(line), "--epochs", "1", "--nprobe", "4"]) == 0
    assert capsys.readouterr().out.count("wrote tuned.faiss") == 3


def test_code_of_the_trackers(data, built, monkeypatch):
    """With stand-ins of the same signatures, as the trackers are too large to install."""
    text, logged = (DOCS / "guide.rst").read_text(encoding="utf-8"), []

    @contextlib.contextmanager
    def opened(**_):
        def log(data, step=None):
            logged.append(("wandb", data["epoch"], data["overlap_at_10"]))

        def add_scalar(tag, scalar_value, global_step=None, walltime=None):
            logged.append(("tensorboard", global_step, scalar_value))

        yield SimpleNamespace(log=log, add_scalar=add_scalar)

    def log_metrics(metrics, step=None):
        assert all(isinstance(value, float | int) for value in metrics.values())
        logged.append(("mlflow", step, metrics["overlap_at_10"]))

    stand_ins = {
        "wandb": SimpleNamespace(init=opened), "mlflow": SimpleNamespace(log_metrics=log_metrics),
        "torch.utils.tensorboard": SimpleNamespace(SummaryWriter=opened),
    }  # fmt: skip
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    section = text.partition("Watching a run")[2].partition("Several processes")[0]
    blocks = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", section)
    assert len(blocks) == len(stand_ins)
    for block in blocks:
        known = {"index": built(), "embeddings": data.documents[:2000], "queries": data.queries[:600]}
        exec(textwrap.dedent(block), known | {"distill": functools.partial(faiss_distill.distill, **QUICK)})
    assert [(name, epoch) for name, epoch, _ in logged] == [
        (n, e) for n in ("wandb", "tensorboard", "mlflow") for e in (0, 1)
    ]
    assert len({value for *_, value in logged}) == 2


def test_code_of_the_exports(data, built, monkeypatch):
    """With stand-ins of the same signatures for what needs a GPU."""
    text, seen = (DOCS / "guide.rst").read_text(encoding="utf-8"), []

    def build_precomputed(index_params, dim, pq_centers, centers, centers_rot, rotation_matrix, resources=None):
        shapes = [array.shape for array in (pq_centers, centers, centers_rot, rotation_matrix)]
        assert shapes == [(16, 4, 2**index_params.pq_bits), (index_params.n_lists, 72), (16, 64), (64, dim)]
        return "built"

    def extend(index, new_vectors, new_indices, resources=None):
        seen.append((index, new_vectors.shape, new_indices.shape))

    ivf_pq = SimpleNamespace(IndexParams=SimpleNamespace, build_precomputed=build_precomputed, extend=extend)
    monkeypatch.setitem(sys.modules, "cupy", np)
    monkeypatch.setitem(sys.modules, "cuvs", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuvs.neighbors", SimpleNamespace(ivf_pq=ivf_pq))
    section = text.partition("Other libraries\n----")[2].partition("FastScan\n----")[0]
    blocks = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", section)
    assert len(blocks) == 2
    index, query = built("OPQ16,PQ16x4np"), data.queries[0]
    known = {"index": index, "ivf_index": built(), "query": query, "embeddings": data.documents[:2000]}
    for block in blocks:
        exec(textwrap.dedent(block), known)
    assert known["nearest"].tolist() == index.search(query[None], 10)[1][0].tolist()
    assert seen == [("built", (2000, 64), (2000,))]


@pytest.mark.usefixtures("_files")
def test_code_of_the_options(data):
    blocks = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", OPTIONS)
    np.save("relevant.npy", np.arange(1500))
    Path("qrels.tsv").write_text("0 0 3 1\n7 0 5 1\n", encoding="utf-8")
    Path("named.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\n", encoding="utf-8")
    sample = np.arange(0, 2000, 2)
    known = {
        "np": np, "scipy": scipy, "nq": 1500, "index": faiss.read_index("wiki.faiss"), "queries": data.queries[1500:],
        "judgements": np.eye(1500, 2000, dtype=int), "names": [f"q{i}" for i in range(1500)],
        "titles": {f"d{i}": i for i in range(2000)}, "sample": data.documents[sample], "ids_of_sample": sample,
        "new_log": data.queries[:1500, 8:], "new_queries": data.queries[1500:, 8:],
    }  # fmt: skip
    assert len(blocks) == 6
    for block in blocks:
        exec(textwrap.dedent(block), known)
    assert known["relevant"] == {1: {3: 1}}
    assert known["published"].depth == 200
    assert known["adapter"].linear.in_features == 56
    assert known["mine"] == faiss_distill.DistillConfig(loss="kl", learning_rate=0.01)


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst"))
    documented = re.findall(r"^\.\. (?:auto|py:)\w+:: (?:.*\.)?(\w+)$", pages, re.MULTILINE)
    assert {*faiss_distill.__all__, *typing.__all__} <= {*documented}


def test_the_wheel_is_that_of_this_version():
    assert f"faiss_distill-{faiss_distill.__version__}-py3-none-any.whl" in README


def test_make_targets_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)|`make (\w+)`", README, re.MULTILINE):
        assert f"\n{''.join(target)}:" in makefile


def test_code_of_the_factory_strings(data, capsys, tmp_path, monkeypatch):
    text = (DOCS / "factory.rst").read_text(encoding="utf-8")
    known = {"embeddings": data.documents, "queries": data.queries, "validation": data.queries[:300]}
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", text):
        code = re.sub(",PQ16(np)?", ",PQ16x4np", textwrap.dedent(block).replace("384", "64"))
        code = code.replace("epochs=5", "epochs=1")
        exec(code, known)
    assert known["report"].config.epochs == 1
    assert known["points"].cheapest(0.3).nprobe == known["index"].nprobe
    assert Path("points.png").exists()
    out = capsys.readouterr().out
    shown = re.findall(r"code-block:: text\n\n((?:   .*\n|\n)+)", text)[1]
    for line in textwrap.dedent(shown).splitlines():
        assert line == "..." or line.split("  ")[0] in out  # the same rows
