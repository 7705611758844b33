"""Sphinx configuration."""

import faiss_distill

project = "faiss_distill"
author = "the faiss_distill authors"
copyright = "2026, the faiss_distill authors"
release = version = faiss_distill.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
]
html_theme = "furo"
html_title = f"faiss_distill {version}"
html_static_path = ["_static"]
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
nitpick_ignore_regex = [
    # other projects' names: the pages are built without the network
    ("py:.*", r"(numpy|np|torch|faiss|collections|pathlib|enum|typing|argparse)\..*"),
    ("py:.*", r"(NDArray|Float32|Int64|Path|Sequence|Any|Enum|optional)"),
    ("py:class", r"faiss_distill\.(state|evaluation|config)\..*"),
]
