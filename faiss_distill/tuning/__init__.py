"""The order of the stages: what was passed, taught, learned, judged and kept."""
