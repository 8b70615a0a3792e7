"""Whether a score means anything: nulls by permutation, calibrated scores, false discoveries, intervals.

Pure functions of numbers and neighbor tables. No I/O, no Ray, no Arrow.
"""

from platonic_ray.statistics.calibration import Calibration, benjamini_hochberg, calibrate
from platonic_ray.statistics.growth import Growth, GrowthPoint, grow
from platonic_ray.statistics.halves import Layer, check_halves, interval_of_layers, require_groups
from platonic_ray.statistics.intervals import Interval, Intervals, queries_interval, undefined_interval
from platonic_ray.statistics.null import (
    ROUNDING,
    Groups,
    NeighborSide,
    Null,
    calibrate_best,
    calibrate_pair,
    has_cheap_null,
    has_null,
    null_scores,
)
from platonic_ray.statistics.permutations import (
    Permutations,
    choose_permutations,
    group_numbers,
    permutations,
    rotations,
)
from platonic_ray.statistics.permuted import SLACK, has_kernel_null, kernel_null_scores, permuted_products
from platonic_ray.statistics.permuted_rows import has_rows_null, rows_null_scores
from platonic_ray.statistics.relabel import Lists, relabelled_sums

__all__ = [
    "ROUNDING",
    "SLACK",
    "Calibration",
    "Groups",
    "Growth",
    "GrowthPoint",
    "Interval",
    "Intervals",
    "Layer",
    "Lists",
    "NeighborSide",
    "Null",
    "Permutations",
    "benjamini_hochberg",
    "calibrate",
    "calibrate_best",
    "calibrate_pair",
    "check_halves",
    "choose_permutations",
    "group_numbers",
    "grow",
    "has_cheap_null",
    "has_kernel_null",
    "has_null",
    "has_rows_null",
    "interval_of_layers",
    "kernel_null_scores",
    "null_scores",
    "permutations",
    "permuted_products",
    "queries_interval",
    "relabelled_sums",
    "require_groups",
    "rotations",
    "rows_null_scores",
    "undefined_interval",
]
