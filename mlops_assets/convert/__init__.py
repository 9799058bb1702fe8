"""Deployment files of Azure ML's SDK v1 become documents of v2, with an account of every value.

What v1 did stays: its defaults are written out where v2's differ, and a key that v1 never read, by
its spelling or by its place, has no effect in the documents either; the report says what was
probably meant.
"""

from mlops_assets.convert.conversion import Conversion, convert, write

__all__ = ["Conversion", "convert", "write"]
