"""What several of the commands ask of their arguments."""

import click

from mlops_assets.spec import model_folders
from resources.environment import Profile


def require_model(profile: Profile, model: str) -> None:
    """Refuse a name that is no model's; says which there are."""
    known = [folder.name for folder in model_folders(profile.models)]
    if model not in known:
        raise click.BadParameter(f"no model '{model}'; there are: {', '.join(known)}")
