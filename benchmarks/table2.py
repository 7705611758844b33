"""Table 2: the methods at equal bytes and lists probed.

python -m benchmarks.table2 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.methods import OURS, PEERS
from benchmarks.suite import Experiment, Row, Table, main
from benchmarks.suite.scann_peer import scann_rows


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned indexes, peers, ours."""
    return [
        e.row("IVFPQ", e.factory(opq=False), baseline=True),
        e.row("IVFOPQ", e.factory(), baseline=True),
        *scann_rows(e),
        *(e.row(name, e.factory(), config, baseline=True) for name, config in PEERS.items()),
        e.row("ours", e.factory(), OURS),
    ]


TABLE = Table("table2", "Methods at equal bytes and lists probed", rows)

if __name__ == "__main__":
    main(TABLE)
