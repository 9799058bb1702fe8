"""The model's own code: loaded from the exported tree, and from nowhere else of the repository."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mlops_assets.training.errors import TrainingProblem, own_frames

#: Modules of the platform that the training process itself stands on.
PLATFORM = ("training", "scoring", "spec", "files")


@dataclass(frozen=True)
class Source:
    """A model's code, imported."""

    root: Path
    package: ModuleType
    #: ``build(params) -> estimator`` or None.
    build: Callable[[dict[str, Any]], Any] | None
    #: ``train(frame, target, params) -> fitted estimator`` or None.
    train: Callable[..., Any] | None

    def modules(self) -> list[ModuleType]:
        """Top-level modules that were loaded from the exported tree."""
        found = [self.package]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and "." not in name and Path(file).is_relative_to(self.root):
                found.append(module)
        return [m for i, m in enumerate(found) if m not in found[:i]]


def load_source(root: Path, folder: str, model: str, repository: Path) -> Source:
    """Import a model's ``train.py`` under a private package name.

    Args:
        root: the exported tree.
        folder: the model's folder inside it.
        model: the model's name.
        repository: the checkout that the platform runs from; none of its other modules may be
            imported, since they would be another commit's.

    Raises:
        TrainingProblem: no train.py, an error in it, or not exactly one of ``build`` and ``train``.
    """
    path = root / folder / "train.py"
    if not path.is_file():
        raise TrainingProblem("import", f"{folder}/train.py: missing in this commit")
    sys.meta_path.insert(0, _Barrier(repository, root))
    sys.path.append(str(root))
    name = f"mlops_model_{model}"
    try:
        package = _package(name, root / folder)
        module = importlib.import_module(f"{name}.train")
    except SystemExit as error:
        place, frames = own_frames(error, root)
        message = f"{place}: train.py calls sys.exit({error.code!r}) when it is imported"
        raise TrainingProblem("exit", message, frames) from None
    except Exception as error:
        place, frames = own_frames(error, root)
        message = f"{place or 'train.py'}: {type(error).__name__}: {error}"
        raise TrainingProblem("import", message, frames) from None
    build, train = getattr(module, "build", None), getattr(module, "train", None)
    if callable(build) == callable(train):
        found = "both" if callable(build) else "neither"
        raise TrainingProblem(
            "import",
            f"train.py must have one of build(params) and train(frame, target, params); it has "
            f"{found}",
        )
    return Source(root, package, build, train)


def _package(name: str, folder: Path) -> ModuleType:
    """A package of that name over a folder, with or without ``__init__.py``."""
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(
            name, init, submodule_search_locations=[str(folder)]
        )
    else:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    assert spec is not None, "a file or a folder has a spec"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None:
        spec.loader.exec_module(module)
    return module


class _Barrier(importlib.abc.MetaPathFinder):
    """Refuses modules of the repository that the exported tree does not hold."""

    def __init__(self, repository: Path, root: Path) -> None:
        self._repository = repository
        self._root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Raise ImportError, or leave it to the others."""
        first, _, rest = name.partition(".")
        if first == "mlops_assets":
            if rest and rest.partition(".")[0] not in PLATFORM:
                raise ImportError(self._message(name), name=name)
            return
        if path is None and self._holds(self._repository, name) and not self._exported(name):
            raise ImportError(self._message(name), name=name)

    def _exported(self, name: str) -> bool:
        return self._holds(self._root, name)

    @staticmethod
    def _holds(root: Path, name: str) -> bool:
        return (root / name).is_dir() or (root / f"{name}.py").is_file()

    @staticmethod
    def _message(name: str) -> str:
        return (
            f"'{name}' is a module of the repository outside of what this model declares; import "
            "the model's own files relatively (from .features import ...), or list the folder "
            "in source.paths of model.yaml"
        )
