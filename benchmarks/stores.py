"""Vector stores of other libraries, tuned by the line that their users write, searched by their own calls.

    pip install -c constraints-integrations.txt -e ".[test-integrations]"
    python -m benchmarks.stores               # the packaged sample
    python -m benchmarks.stores --quick       # a part of it

Each library fills a store with the documents, over codes of 16 bytes. Then ``distill`` gets the store and the training
queries, as texts where the store embeds them, by functions that look vectors up. Before and after are the overlap@10
with exact search of the test queries, counted in what the library's own search returns. Writes ``results/stores.txt``
and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import metadata
from pathlib import Path

import faiss
import numpy as np
from scipy.stats import bootstrap

from benchmarks.suite.stores import FACTORY, STORES, TOP, Corpus
from faiss_distill.datasets import load_debian_packages
from faiss_distill.metrics import recall
from faiss_distill.render.content import Column, Section
from faiss_distill.render.table import as_text


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the sample")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("stores", nargs="*", help="names of libraries (default: all)")
    args = parser.parse_args()
    data = load_debian_packages()
    corpus = Corpus(data.documents[: 4000 if args.quick else None], data.queries)
    log, test = (np.arange(len(data.queries))[part] for part in (data.train, data.test))
    truth = faiss.knn(data.queries[test], corpus.documents, TOP, faiss.METRIC_INNER_PRODUCT)[1]
    texts = [f"query {i}" for i in log]
    rows = []
    for kind in STORES:
        if args.stores and kind.name not in args.stores:
            continue
        with tempfile.TemporaryDirectory() as folder:
            store = kind(corpus, Path(folder))
            before = recall(store.search(test), truth)
            report = store.run(kind.line, queries=data.queries[log], texts=texts)
            after = recall(store.search(test), truth)
        spread = bootstrap((after - before,), np.mean, rng=np.random.default_rng(0)).confidence_interval
        found = {"before": float(before.mean()), "after": float(after.mean()), "gain": (*map(float, spread),)}
        rows.append({"store": kind.name, "package": kind.package, "version": metadata.version(kind.package),
                     "line": kind.line, "kept": report.kept, **found})  # fmt: skip
        print(f"{kind.name}: {found['before']:.3f} → {found['after']:.3f}", flush=True)
    columns = [
        Column("library", left=True), Column("tested with", left=True), Column("the line", left=True),
        Column("overlap@10 of its own search", ".3f"), Column("95 % of the gain"),
    ]  # fmt: skip
    cells = [
        (row["store"], f"{row['package']} {row['version']}", row["line"], (row["before"], row["after"]),
         "{:+.3f} to {:+.3f}".format(*row["gain"]))
        for row in rows
    ]  # fmt: skip
    title = f"{len(corpus.documents)} documents, {FACTORY}, {len(log)} queries to tune, {len(test)} to test, seed 0"
    text = as_text([Section(title, columns=columns, rows=cells)])
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "stores.txt").write_text(text + "\n")
    (args.output / "stores.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
