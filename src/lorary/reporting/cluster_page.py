"""Clusters of experts on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorary.errors import EvaluationError
from lorary.reporting.canvas import Picture
from lorary.reporting.cluster_figures import draw_k_curve, draw_tree
from lorary.reporting.figure import draw_similarity
from lorary.reporting.html import write_report


def report_clusters(
    clusters: Mapping[str, Sequence[str]],
    names: Sequence[str],
    similarity: Sequence[Sequence[float]],
    into: str | Path,
    *,
    curve: Sequence[Mapping[str, float]] = (),
    provenance: Mapping[str, object] | None = None,
    title: str = "Clusters of the experts",
    png_dir: str | Path | None = None,
) -> Path:
    """Write similarity map, tree and, with a curve over k, the choice of k; clusters list names of experts.

    Raises E-REPORT without a map, which random methods don't have.
    """
    pictures = draw_clusters(clusters, names, similarity, curve)
    sizes = ", ".join(f"{name}: {len(members)}" for name, members in clusters.items())
    return write_report(
        into, title=title, summary=[f"{len(names)} experts in {len(clusters)} clusters ({sizes})."],
        pictures=pictures, provenance=provenance, png_dir=png_dir,
    )  # fmt: skip


def draw_clusters(
    clusters: Mapping[str, Sequence[str]],
    names: Sequence[str],
    similarity: Sequence[Sequence[float]] | NDArray[np.floating[Any]],
    curve: Sequence[Mapping[str, float]] = (),
) -> list[Picture]:
    """Draw what is known of clusters. Raises E-REPORT without a map."""
    if not names:
        raise EvaluationError(
            "E-REPORT", "these clusters come without a map of similarities.", "Use mbc or embeddings."
        )
    values = np.asarray(similarity, dtype=float)
    pictures = [draw_similarity(names, values, clusters=clusters)]
    if len(names) > 1:
        pictures.append(draw_tree(names, values, clusters=clusters))
    return pictures + ([draw_k_curve(curve, chosen=len(clusters))] if curve else [])
