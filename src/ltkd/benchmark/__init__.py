"""Measures the engine against a plain loop, side by side, in processes of their own, in one run."""

from ltkd.benchmark.images import images_table, measure_images
from ltkd.benchmark.measure import Measurement, measure
from ltkd.benchmark.operations import count_operations
from ltkd.benchmark.table import as_json, markdown
from ltkd.benchmark.variants import Variant, rank_variants, scaling_variants, standard_variants

__all__ = [
    "Measurement",
    "Variant",
    "as_json",
    "count_operations",
    "images_table",
    "markdown",
    "measure",
    "measure_images",
    "rank_variants",
    "scaling_variants",
    "standard_variants",
]
