"""A small tuning with an installed wheel: run by ``make wheel`` in a folder without the sources."""

import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np


def main() -> None:
    """Tune by the library and by the command line, and read the report."""
    import faiss

    import faiss_distill
    from faiss_distill.datasets import load_debian_packages

    assert "site-packages" in str(Path(faiss_distill.__file__)), faiss_distill.__file__
    assert metadata.version("faiss-distill") == faiss_distill.__version__
    assert (Path(faiss_distill.__file__).parent / "py.typed").exists()
    data = load_debian_packages()
    x, queries = (np.ascontiguousarray(each[:, :64]) for each in (data.documents[:2000], data.queries))
    index = faiss.index_factory(64, "IVF16,PQ16x4", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    index.nprobe = 4
    faiss.write_index(index, "wiki.faiss")
    report = faiss_distill.distill(index, x, queries, epochs=1)
    assert report.kept, report.reason
    np.save("wiki.npy", x)
    np.save("log.npy", queries)
    tune = ["tune", "wiki.faiss", "wiki.npy", "--queries", "log.npy", "--epochs", "1", "-o", "tuned.faiss", "--json"]
    told = subprocess.run(["faiss-distill", *tune], check=True, stdout=subprocess.PIPE, text=True).stdout
    again = faiss_distill.DistillReport.from_json(told)
    assert again.kept, again.reason


if __name__ == "__main__":
    main()
