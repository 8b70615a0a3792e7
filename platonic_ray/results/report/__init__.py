"""A result as one HTML file that needs no network: what was asked, what came out, whether it means anything.

`page` puts the file together, `data` packs the numbers that its script reads, `findings` says in words
what they mean, `charts` makes the pictures (Bokeh, inlined). `assets/` holds the page itself.
"""

from platonic_ray.results.report.page import render_report, save_report

__all__ = ["render_report", "save_report"]
