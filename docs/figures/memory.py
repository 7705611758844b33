"""Bytes of embeddings, and the most memory that tuning with them took: run by hand, it draws _static/memory.png."""

from pathlib import Path

from style import AFTER, BEFORE, panels

DOCS = Path(__file__).parents[1]
WITH_BOUND = 10  # columns of a row with a bound

rows = [line.split() for line in (DOCS / "tables" / "memory.txt").read_text(encoding="utf-8").splitlines()[1:]]
bounded = [row for row in rows if len(row) > WITH_BOUND]
figure, ax = panels(1, height=2.6)
names = []
for at, row in enumerate(bounded):
    n, d, peak = int(row[0]), int(row[1]), int(row[5])
    stored = 2 * n * d / 1e6  # float16
    for offset, size, color in ((-0.2, stored, BEFORE), (0.2, peak, AFTER)):
        ax.barh(at + offset, size, 0.36, color=color)
        ax.text(size + 15, at + offset, f"{size:,.0f}", va="center", color=color)
    names.append(f"{n:,} x {d}")
ax.set_yticks(range(len(names)), names)
ax.invert_yaxis()
ax.set(xlabel="MB", xlim=(0, 1800))
ax.plot([], [], color=BEFORE, lw=6, label="embeddings, float16")
ax.plot([], [], color=AFTER, lw=6, label="peak memory, with max_memory")
ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2)
figure.savefig(DOCS / "_static" / "memory.png", dpi=150)
