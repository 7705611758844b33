"""What the tables share: data, a cache, tuning without the gate, measuring, significance, output."""

from benchmarks.suite import output
from benchmarks.suite.command import Table, main
from benchmarks.suite.experiment import Experiment
from benchmarks.suite.results import Row

__all__ = ["Experiment", "Row", "Table", "main", "output"]
