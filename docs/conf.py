"""Sphinx configuration."""

import sys
from pathlib import Path

import faiss_distill
from faiss_distill import typing

sys.path.insert(0, str(Path(__file__).parent))

project = "faiss_distill"
author = "the faiss_distill authors"
copyright = "2026, the faiss_distill authors"
release = version = faiss_distill.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "matplotlib.sphinxext.plot_directive",
    "sphinx_gallery.gen_gallery",
    "directives",
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"faiss_distill {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
plot_include_source = plot_html_show_source_link = plot_html_show_formats = False
plot_formats = [("png", 150)]
exclude_patterns = ["_build", "sg_execution_times.rst", "tutorials/*.rst"]
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "run_stale_examples": True,
    "show_signature": False,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 3600,
    "remove_config_comments": True,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "thumbnail_size": (400, 190),
    "default_thumb_file": str(Path(__file__).parent / "_static" / "recall.png"),
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: f"~faiss_distill.typing.{name}" for name in typing.__all__} | {
    "Float32": "~faiss_distill.state.Float32",
    "Int64": "~faiss_distill.state.Int64",
    # imported for type checkers alone
    "LinearTransform": "~faiss.LinearTransform",
    "ProcessGroup": "~torch.distributed.ProcessGroup",
    "SentenceTransformer": "~sentence_transformers.SentenceTransformer",
}
python_maximum_signature_line_length = 90
napoleon_use_ivar = True
nitpick_ignore_regex = [
    # other projects' names: the pages are built without the network
    ("py:.*", r"(numpy|np|torch|faiss|pandas|pd|sentence_transformers|collections|pathlib|enum|typing|argparse)\..*"),
    ("py:.*", r"(NDArray|Path|Sequence|Any|Enum|nn\.Module|ProcessGroup|Self|optional)"),
    ("py:.*", r"(Effort|Learn|Assignment|Encoding|Comparison)"),
    ("py:class", r"faiss_distill\.(evaluation|config|learning|tuning\.gate)\..*"),
]
