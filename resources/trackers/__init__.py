"""Trackers that revision requests are kept in."""
