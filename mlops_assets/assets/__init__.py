"""The assets, one file each, with their checks beside them."""
