"""What runs where a model is served. Knows nothing of Dagster; imports no scikit-learn itself."""

import os

# onnxruntime for Linux reports its use to its maker, and leaves a file for that in the temporary
# folder, unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
