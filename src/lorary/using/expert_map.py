"""How alike a library's experts are, for who wants to see it."""

from collections.abc import Mapping

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from lorary.adapters.products import inner_products
from lorary.errors import LibraryError
from lorary.formats.peft import open_experts
from lorary.library.adapter.expert import Expert
from lorary.pages.inspector import MapOfExperts

MOST_EXPERTS = 256
"""On one map: more can neither be told apart on it, nor be compared while somebody waits."""


def map_experts(experts: Mapping[str, Expert]) -> MapOfExperts:
    """Compare experts by the cosine of their products s B A, in the order of their tree (average linkage).

    Raises E-MAP for more than can be shown, and whatever an expert's damaged file raises.
    """
    if len(experts) > MOST_EXPERTS:
        what = f"the library has {len(experts):,} experts; a map shows {MOST_EXPERTS} at most."
        raise LibraryError(
            "E-MAP", what, "Group them: lorary cluster LIBRARY --method mbc --into groups.json --report page.html"
        )
    opened = open_experts(experts)
    inner = inner_products(list(opened.values())).numpy()
    norms = np.sqrt(inner.diagonal())
    norms[norms == 0] = 1  # an expert that changes nothing is like nobody
    cosines = np.clip(inner / np.outer(norms, norms), -1, 1)
    order = _in_tree(cosines)
    names = list(opened)
    return MapOfExperts([names[i] for i in order], cosines[np.ix_(order, order)].tolist())


def _in_tree(cosines: np.ndarray) -> list[int]:
    if len(cosines) < 3:
        return list(range(len(cosines)))
    distance = 1 - (cosines + cosines.T) / 2
    np.fill_diagonal(distance, 0)
    joins = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    order: list[int] = leaves_list(joins).tolist()
    return order
