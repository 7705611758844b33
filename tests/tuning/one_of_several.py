"""Several processes that tune indexes together: ``python one_of_several.py FOLDER SIZE [FOLDER SIZE ...]``.

Each of ``SIZE`` processes tunes what ``FOLDER/cases.json`` names, one after the other, and leaves ``NAME-RANK.faiss``
and ``NAME-RANK.json``; then come those of the next folder. Their exit statuses are printed, as JSON. The processes are
forked from this one before anything runs in it, since imports take longer than such a tuning.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import faiss
import numpy as np
import torch
import torch._dynamo  # which the first optimizer of a process imports, for seconds
from torch import distributed as dist

from faiss_distill import DistillConfig, DistillError, LinearAdapter, columns, distill, world
from faiss_distill.index.registry import open_index
from faiss_distill.learning.documents import Documents
from faiss_distill.tuning.memory import needed


def dies(*_, **__):
    os._exit(9)


def in_little_memory(index, folder, options):
    """As few bytes as can be, with even the smallest column in a file, which is sent in many blocks."""
    columns.SMALL, world.BLOCK = 1, 1000
    config = DistillConfig(**options)
    return {"max_memory": needed(open_index(index), config.max_queries, config)[1], "workdir": folder / "work"}


def main(folder, rank, size):
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=size)
    group = dist.group.WORLD if size > 1 else None
    documents, queries = (np.load(folder / f"{name}.npy") for name in ("documents", "queries"))
    for case in json.loads((folder / "cases.json").read_text()):
        options, here = case["options"], case.get("rank") == rank
        index = faiss.read_index(str(folder / case["index"]))
        x, q, fault = documents.copy(), queries, case.get("fault") if here else None
        if fault == "other embeddings":
            x[-1] *= 1.001
        elif fault == "other index":
            index = faiss.read_index(str(folder / case["other"]))
        elif fault == "other options":
            options = options | {"seed": 5}
        elif fault == "other queries":
            q = q[:-1]
        elif fault == "other shape":
            x = x[:-1]
        elif fault == "dies":
            Documents.complete = dies
        elif fault == "disk":
            Documents.complete = lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        if case.get("mapped"):
            options = options | in_little_memory(index, folder, options)
        epochs = []

        def on_epoch(epoch, epochs=epochs, fails=fault == "on_epoch"):
            epochs.append(epoch["epoch"])
            if fails:
                raise RuntimeError("enough")

        encoder = {"query_encoder": LinearAdapter(64)} if case.get("encoder") else {}
        before = faiss.serialize_index(index).tobytes()
        try:
            report = distill(index, x, q, group=group, on_epoch=on_epoch, **encoder, **options)
        except (DistillError, OSError, RuntimeError) as error:
            told = {"error": type(error).__name__, "text": str(error)}
        else:
            told = {
                "kept": report.kept, "gain": report.gain, "history": report.history, "best": report.best_epoch,
                "temperature": report.temperature, "teacher": report.teacher, "mine": report.index is index,
            }  # fmt: skip
            if encoder and rank == 0 and report.kept:
                told["matrix"] = report.query_encoder.matrix.tolist()
        told["epochs"] = epochs
        told["untouched"] = faiss.serialize_index(index).tobytes() == before
        faiss.write_index(index, str(folder / f"{case['name']}-{rank}.faiss"))
        (folder / f"{case['name']}-{rank}.json").write_text(json.dumps(told))
        if fault in ("disk", "dies") or "process 0 of" in told.get("text", ""):
            return


def forked(folder, rank, size):
    """The id of a process that does it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            main(folder, rank, size)
            if dist.is_initialized():
                dist.destroy_process_group()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def together(folder, size):
    """The exit statuses of all, by rank."""
    started = [forked(folder, rank, size) for rank in range(size)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]


if __name__ == "__main__":
    told = [together(Path(folder), int(size)) for folder, size in zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
    print(json.dumps(told))  # noqa: T201
