"""Groups of points by k-means, and how many: the steps that clusterers share."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, silhouette_score

from lorary.errors import BuildError

Points = NDArray[np.floating]
K = int | Literal["auto"]
ALL_UP_TO, N_ABOVE = 20, 8
"""Every number of groups up to the first is tried, and so many above, evenly on a logarithmic scale."""
N_PAIRS = 8
SHARE = 0.8


def k_means(points: Points, k: int, seed: int, *, n_starts: int = 10) -> list[int]:
    """Label points (N, F) by k-means, k-means++ starts, the best of n_starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal experts leave fewer distinct points than k
        means = KMeans(n_clusters=k, init="k-means++", n_init=n_starts, random_state=seed).fit(points)
    return [int(label) for label in means.labels_]


def group(points: Points, similarity: Points, k: K, seed: int) -> tuple[list[int], list[dict[str, float]]]:
    """Label points (N, F); with k="auto" as many groups as the curve of `k_curve` says, which is given too.

    Raises E-CLUSTERS for k above N, and for k="auto" with fewer than 3 points.
    """
    n = len(points)
    if k != "auto":
        if k > n:
            raise BuildError("E-CLUSTERS", f"k={k}, but there are {n} experts.", "Lower k.")
        return k_means(points, k, seed), []
    if n < 3:
        raise BuildError("E-CLUSTERS", f"k=auto needs at least 3 experts, found {n}.", "Give k as a number.")
    curve = k_curve(points, similarity, seed)
    return k_means(points, best_k(curve), seed), curve


def k_curve(points: Points, similarity: Points, seed: int) -> list[dict[str, float]]:
    """Try numbers of groups from 2 to half of N; rows of k and two scores.

    silhouette: the mean over points of (b - a) / max(a, b), with distance 1 - similarity (N, N) to the own group (a)
    and to the nearest other (b); Rousseeuw 1987. stability: k-means on two random halves that share most points, the
    adjusted Rand index of what they say of those (1: the same groups, 0: chance), mean of N_PAIRS; Ben-Hur et al. 2002.
    """
    distance = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(distance, 0)
    return [
        {
            "k": k,
            "silhouette": _silhouette(distance, k_means(points, k, seed)),
            "stability": _stability(points, k, seed),
        }
        for k in numbers_to_try(len(points))
    ]


def _silhouette(distance: Points, labels: Sequence[int]) -> float:
    if not 1 < len(set(labels)) < len(labels):  # equal points fill fewer groups
        return 0.0
    return float(silhouette_score(distance, labels, metric="precomputed"))


def numbers_to_try(n_points: int) -> list[int]:
    """List the numbers of groups that a curve tries, from 2 to half of n_points."""
    most = max(2, n_points // 2)
    tried = set(range(2, min(most, ALL_UP_TO) + 1))
    if most > ALL_UP_TO:
        tried |= set(np.geomspace(ALL_UP_TO, most, N_ABOVE + 1).round().astype(int).tolist())
    return sorted(tried)


def best_k(curve: Sequence[Mapping[str, float]]) -> int:
    """Choose the number of groups with the highest silhouette; the smaller one of equals."""
    return int(max(curve, key=lambda row: (row["silhouette"], -row["k"]))["k"])


def _stability(points: Points, k: int, seed: int) -> float:
    n_taken = max(k, math.ceil(SHARE * len(points)))
    generator = np.random.default_rng(seed)
    scores = []
    for _ in range(N_PAIRS):
        halves = [np.sort(generator.choice(len(points), n_taken, replace=False)) for _ in range(2)]
        labels = [dict(zip(half, k_means(points[half], k, seed, n_starts=3), strict=True)) for half in halves]
        common = np.intersect1d(halves[0], halves[1])
        scores.append(adjusted_rand_score(*([found[i] for i in common] for found in labels)))
    return float(np.mean(scores))
