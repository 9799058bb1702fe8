"""Machine learning on Azure as code: every model is a chain of Dagster assets."""
