"""What runs in the training process. Knows nothing of Dagster but its Pipes protocol."""

#: Part of a version's identity. Raise it when the same source, data and packages would give
#: another model or other evidence.
RUNNER_VERSION = 2
