"""Which chapter imports which, found in the source, and the layers that pyproject.toml puts them in."""

from pathlib import Path

import grimp
from matplotlib.patches import FancyBboxPatch
from style import AFTER, panels

import faiss_distill

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PACKAGE = Path(faiss_distill.__file__).parent
settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
contract = next(c for c in settings["contracts"] if c["type"] == "layers")
layers = [[module.strip() for module in layer.split("|")] for layer in contract["layers"]]
modules = [module for layer in layers for module in layer]
graph = grimp.build_graph(PACKAGE.name, include_external_packages=True, cache_dir=None)
for module in modules:
    if graph.find_children(module):
        graph.squash_module(module)  # a package with all that is in it
imports = {module: graph.find_modules_directly_imported_by(module) for module in modules}

figure, ax = panels(1, height=0.21 * len(modules) + 0.1)
start = 0
for layer in layers:
    size = len(layer)
    box = FancyBboxPatch(
        (start + 0.12, start + 0.12), size - 0.24, size - 0.24, "round,pad=0,rounding_size=0.25", fc="0.89", ec="none"
    )
    ax.add_patch(box)
    start += size
for row, module in enumerate(modules):
    places = [modules.index(other) for other in imports[module] if other in modules and other != module]
    if places:
        ax.plot([row, max(places) + 0.5], [row + 0.5] * 2, color="0.88", lw=0.8, zorder=0)
    ax.plot([column + 0.5 for column in places], [row + 0.5] * len(places), "o", color="0.35", ms=4)
    above = [number for number, other in enumerate(modules) if module in imports[other] and other != module]
    if above:
        ax.plot([row + 0.5] * 2, [min(above) + 0.5, row + 0.5], color="0.88", lw=0.8, zorder=0)
    color = AFTER if "faiss" in imports[module] else "black"
    name = module.removeprefix(f"{PACKAGE.name}.")
    ax.text(row + 0.05, row + 0.5, name, ha="right", va="center_baseline", fontsize=9, color=color)
    ax.plot(row + 0.5, row + 0.5, "s", color=color, ms=4)
ax.set(xlim=(-3.4, len(modules) + 0.2), ylim=(len(modules) + 0.2, -0.2))
ax.set_axis_off()
