"""A checkout whose profile is the tests' Azure, for tests that change its documents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from resources.azure.clients import AzureClients
from resources.environment import Profile, checkout, load_profile

ENVIRONMENTS = {
    "staging": {"target": "aci"},
    "production": {"target": "aks", "promotes_from": "staging"},
}
#: Those of the repository that come along.
MODELS = ("diabetes",)


class Checkout:
    """The repository's documents of Azure in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "environments" / "azure"
        shutil.copytree(checkout() / "environments" / "azure", self.folder)
        shutil.copy(checkout() / "dagster.yaml", root)
        for name, content in ENVIRONMENTS.items():
            self.write(f"{name}/environment.json", {"name": name, **content})
        for model in MODELS:
            folder = Path("mlops_assets/models") / model
            shutil.copytree(checkout() / folder, root / folder)

    @property
    def profile(self) -> Profile:
        """As it is read now."""
        variables = {"MLOPS_PROFILE": "azure", "MLOPS_HOME": str(self.root / "home")}
        return load_profile(variables, self.root)

    @property
    def clients(self) -> AzureClients:
        """New ones: nothing is known yet."""
        assert self.profile.azure is not None
        return AzureClients(self.profile.azure)

    def read(self, place: str) -> Any:
        """A document."""
        return json.loads((self.folder / place).read_text())

    def write(self, place: str, content: Any) -> None:
        """Make or replace a document."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def change(self, place: str, **values: Any) -> None:
        """Give keys of a document other values; None removes a key."""
        content = self.read(place) | values
        self.write(place, {key: value for key, value in content.items() if value is not None})
