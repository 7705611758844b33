"""The public names, which :mod:`faiss_distill` imports when the first of them is asked for."""

from faiss_distill.api import distill, evaluate, operating_points
from faiss_distill.config import DistillConfig
from faiss_distill.description import Description, describe
from faiss_distill.errors import DistillError, InputError, MissingDependencyError, UnsupportedIndexError
from faiss_distill.evaluation import Evaluation
from faiss_distill.exploration import OperatingPoints
from faiss_distill.factory import Built, build, index_factory
from faiss_distill.query_encoders import LinearAdapter
from faiss_distill.readers.qrels import read_qrels
from faiss_distill.report import DistillReport
from faiss_distill.suggestion import Suggestion, suggest
from faiss_distill.trainer import DistillTrainer

__all__ = [
    "Built",
    "Description",
    "DistillConfig",
    "DistillError",
    "DistillReport",
    "DistillTrainer",
    "Evaluation",
    "InputError",
    "LinearAdapter",
    "MissingDependencyError",
    "OperatingPoints",
    "Suggestion",
    "UnsupportedIndexError",
    "build",
    "describe",
    "distill",
    "evaluate",
    "index_factory",
    "operating_points",
    "read_qrels",
    "suggest",
]
