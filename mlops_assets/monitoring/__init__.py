"""What became of a version after its release: captured rows beside what it was trained on.

Pure functions on files, without Dagster; loaded where a run monitors, never with the definitions.

Written on DuckDB, numpy and scipy. evidently and nannyml hold a window as a pandas frame in memory
and judge each column by a fixed limit or without regard to how many columns there are;
alibi-detect's licence (BSL) rules out production use; river and frouros watch one stream value by
value. None of them knows that rows of one request are no independent rows.
"""
