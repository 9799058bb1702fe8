"""What runs where a model is served. Knows nothing of Dagster; imports no scikit-learn itself."""
