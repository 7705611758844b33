"""Settings of the methods that the tables compare, each in one place."""

from __future__ import annotations

from faiss_distill.config import Assignment, DistillConfig, Encoding

OURS = DistillConfig()
"""The defaults of the library."""

PUBLISHED = DistillConfig(
    loss="listnet",
    candidates="gt + in_batch + top200:1",
    temperature=1.0,
    centroid_rate=1e-3,
    codebook_rate=1e-4,
    balance=True,
    encoding=Encoding.NEAREST,
    assignment=Assignment.FIXED,
)
"""Distill-VQ as published: labels and one of the teacher's Top-200, temperature 1, its learning rates."""

CONTRASTIVE = DistillConfig(
    loss="contrastive",
    candidates="gt + in_batch",
    learning_rate=0.005,
    encoding=Encoding.NEAREST,
    assignment=Assignment.FIXED,
)
"""The objective of MoPQ and its kin: the labelled document against those of the other queries in the batch.

Of the rates 0.001, 0.005 and 0.02 and those of the paper, 0.005 does best on the validation queries, in both metrics
together.
"""

RECONSTRUCTION = DistillConfig(
    loss="reconstruction",
    candidates="in_batch + random10",
    encoding=Encoding.NEAREST,
    assignment=Assignment.FIXED,
)
"""Centroids and codebooks that rebuild the documents, by gradient descent: no queries, no ranking.

Of the rates 0.005 and 0.02 and those of the paper, 0.02 does best on the validation queries.
"""

PEERS = {
    "contrastive": CONTRASTIVE,
    "reconstruction": RECONSTRUCTION,
    "Distill-VQ as published": PUBLISHED,
}
"""What a table compares ours with."""
