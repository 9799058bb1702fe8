"""``python -m tests.azure.aci_deploy ROOT BUNDLE VERSION DIGEST``: one deployment, to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from resources.endpoints.base import VersionRef
from tests.azure.aci_groups import Groups


def main() -> None:
    root, bundle, version, digest = sys.argv[1:]
    found = Groups(Path(root), None)
    try:
        found.deploy(VersionRef("tiny", int(version), digest, Path(bundle)))
    finally:
        print("\n".join(found.log), flush=True)


if __name__ == "__main__":
    main()
