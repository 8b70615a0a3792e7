"""Pure torch functions on tensors: prepared rows, exact neighbors, overlaps, kernel sums.

No I/O, no Ray, no Arrow: this package needs torch and numpy and nothing else, so that a GPU machine
without the rest of the project can compute with it.
"""

from platonic_ray.kernels.dot import (
    LANES,
    canonical_dot,
    canonical_squared_distance,
    dot_error,
    gamma,
    squared_distance_error,
)
from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, anchors, kernel_tile
from platonic_ray.kernels.grams import (
    TileSums,
    blocks_of,
    merge_tree,
    row_inner,
    row_total,
    span,
    super_tile,
)
from platonic_ray.kernels.links import (
    Links,
    linked_products,
    masked_kernel_sums,
    own_kernel_sums,
    own_products,
)
from platonic_ray.kernels.lists import (
    cycle_counts,
    edit_counts,
    jaccard_sums,
    lcs_counts,
    overlap_counts,
    rank_sums,
)
from platonic_ray.kernels.medians import median_distances
from platonic_ray.kernels.moments import (
    LEAF,
    RangeSums,
    column_sums,
    linear_sums,
    product_bytes,
    range_sums,
    whole_sums,
    worthwhile,
)
from platonic_ray.kernels.neighbors import (
    DENSE_VALUES,
    TopK,
    exact_ids,
    exact_neighbors,
    growing_neighbors,
    merge_neighbors,
    tied_share,
    tile_neighbors,
    tile_neighbors_of_both,
)
from platonic_ray.kernels.owners import nearest_owners
from platonic_ray.kernels.panels import tile_inner
from platonic_ray.kernels.permuted import AT_ONCE, MOST_PERMUTED, kernel_square, permuted_inner
from platonic_ray.kernels.prepare import (
    CLAMPED,
    RECIPES,
    as_rows,
    clamp_bounds,
    l2_normalize,
    prepare,
    prepare_layers,
    require_finite,
    require_recipe,
    zero_rows,
)
from platonic_ray.kernels.ranks import neighbor_ranks
from platonic_ray.kernels.rotations import Rotations, rotated_inner
from platonic_ray.kernels.row_sums import kernel_row_sums
from platonic_ray.kernels.samples import (
    sample_edits,
    sample_jaccards,
    sample_lcs,
    sample_overlaps,
    sample_ranks,
)
from platonic_ray.kernels.threads import each, one_thread
from platonic_ray.kernels.ties import Digest, TieRule, tie_keys
from platonic_ray.kernels.trees import root_level, tree_sum
from platonic_ray.kernels.whole import Cells, inner_of_cells

__all__ = [
    "AT_ONCE",
    "CLAMPED",
    "DENSE_VALUES",
    "LANES",
    "LEAF",
    "MICRO",
    "MOST_PERMUTED",
    "RECIPES",
    "Anchor",
    "Cells",
    "Digest",
    "Kernel",
    "Links",
    "RangeSums",
    "Rotations",
    "TieRule",
    "TileSums",
    "TopK",
    "anchors",
    "as_rows",
    "blocks_of",
    "canonical_dot",
    "canonical_squared_distance",
    "clamp_bounds",
    "column_sums",
    "cycle_counts",
    "dot_error",
    "each",
    "edit_counts",
    "exact_ids",
    "exact_neighbors",
    "gamma",
    "growing_neighbors",
    "inner_of_cells",
    "jaccard_sums",
    "kernel_row_sums",
    "kernel_square",
    "kernel_tile",
    "l2_normalize",
    "lcs_counts",
    "linear_sums",
    "linked_products",
    "masked_kernel_sums",
    "median_distances",
    "merge_neighbors",
    "merge_tree",
    "nearest_owners",
    "neighbor_ranks",
    "one_thread",
    "overlap_counts",
    "own_kernel_sums",
    "own_products",
    "permuted_inner",
    "prepare",
    "prepare_layers",
    "product_bytes",
    "range_sums",
    "rank_sums",
    "require_finite",
    "require_recipe",
    "root_level",
    "rotated_inner",
    "row_inner",
    "row_total",
    "sample_edits",
    "sample_jaccards",
    "sample_lcs",
    "sample_overlaps",
    "sample_ranks",
    "span",
    "squared_distance_error",
    "super_tile",
    "tie_keys",
    "tied_share",
    "tile_inner",
    "tile_neighbors",
    "tile_neighbors_of_both",
    "tree_sum",
    "whole_sums",
    "worthwhile",
    "zero_rows",
]
