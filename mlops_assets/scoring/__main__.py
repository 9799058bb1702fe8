"""``python -m mlops_assets.scoring`` serves one version; see ``standalone``."""

import sys

from mlops_assets.scoring.standalone import main

sys.exit(main())
