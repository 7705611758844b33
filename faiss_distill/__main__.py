"""``python -m faiss_distill``."""

import sys

from faiss_distill.cli import main

if __name__ == "__main__":
    sys.exit(main())
