"""Vectors that come later, added to an index that holds learned parameters, with lists and codes for the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from faiss_distill.errors import InputError
from faiss_distill.index.growth import Growth
from faiss_distill.index.lists_file import new_lists_file
from faiss_distill.index.sources import open_embeddings

if TYPE_CHECKING:
    from faiss_distill.tuning.parameters import TunedParameters
    from faiss_distill.tuning.report import DistillReport
    from faiss_distill.typing import FaissIndex, IdsLike, PathLike, VectorsLike


def add(
    parameters: TunedParameters,
    index: FaissIndex,
    embeddings: VectorsLike,
    ids: IdsLike | None,
    invlists_file: PathLike | None,
    options: dict[str, Any],
) -> DistillReport:
    """See :meth:`TunedParameters.add`.

    Raises:
        UnsupportedIndexError: nothing can be added to such an index.
        InputError: it does not hold these parameters, or something else about the arguments is wrong.
    """
    config = parameters.options(**options)
    corpus, ids = open_embeddings(embeddings, ids)
    growth = Growth(index, corpus.n, ids)
    adapter, state = growth.index, growth.state
    parameters.check_fits(adapter, state)
    parameters.check_held(state)
    if corpus.d != adapter.index.d:
        raise InputError("embeddings", f"dimension {adapter.index.d} as the index has", str(corpus.d))
    if corpus.n <= config.depth:
        raise InputError(
            "embeddings", f"more than {config.depth} new vectors", str(corpus.n),
            "collect more of them, or call index.add, which gives them codes that know no queries",
        )  # fmt: skip
    file = new_lists_file(adapter, invlists_file)
    corpus.check_finite(config.block_rows, config.progress)
    growth.fill(corpus.blocks(config.block_rows))
    report = parameters.apply(growth.part, cast(Any, corpus), ids=growth.part_ids, keep=True, **options)
    growth.merge(file)
    return replace(report, index=index)
