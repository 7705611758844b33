"""The public names, which :mod:`faiss_distill` imports when the first of them is asked for."""

from faiss_distill.api import distill, evaluate, operating_points
from faiss_distill.building.build import Built, build
from faiss_distill.building.factory import index_factory
from faiss_distill.building.suggest import Suggestion, suggest
from faiss_distill.config import DistillConfig
from faiss_distill.data.qrels import read_qrels
from faiss_distill.data.query_encoders import LinearAdapter
from faiss_distill.errors import DistillError, InputError, MissingDependencyError, UnsupportedIndexError
from faiss_distill.evaluation.measure import Evaluation
from faiss_distill.evaluation.operating_points import OperatingPoints
from faiss_distill.index.describe import Description, describe
from faiss_distill.tuning.drift import Drift
from faiss_distill.tuning.parameters import TunedParameters
from faiss_distill.tuning.report import DistillReport
from faiss_distill.tuning.trainer import DistillTrainer

__all__ = [
    "Built",
    "Description",
    "DistillConfig",
    "DistillError",
    "DistillReport",
    "DistillTrainer",
    "Drift",
    "Evaluation",
    "InputError",
    "LinearAdapter",
    "MissingDependencyError",
    "OperatingPoints",
    "Suggestion",
    "TunedParameters",
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
