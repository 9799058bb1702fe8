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

from mlops_assets.training.errors import TrainingProblem, own_errors

#: Modules of the platform that the training process itself stands on.
PLATFORM = ("training", "scoring", "spec", "files")


@dataclass(frozen=True)
class Source:
    """A model's code, imported."""

    root: Path
    #: ``build(params) -> estimator`` or None.
    build: Callable[[dict[str, Any]], Any] | None
    #: ``train(frame, target, params) -> fitted estimator`` or None.
    train: Callable[..., Any] | None

    def modules(self) -> list[ModuleType]:
        """Every module that was loaded from the exported tree by now, packages too."""
        return [m for m in list(sys.modules.values()) if _place(m).is_relative_to(self.root)]


def _place(module: ModuleType) -> Path:
    """A module's file; the folder of a package without ``__init__.py``."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        file = next((p for p in getattr(module, "__path__", ()) if isinstance(p, str)), "")
    return Path(file)


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
    if not (root / folder / "train.py").is_file():
        raise TrainingProblem("import", f"{folder}/train.py: missing in this commit")
    # The tree becomes part of the bundle: no byte code in it.
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, _Barrier(repository, root))
    name = f"mlops_model_{model}"
    with own_errors(root, "importing train.py", "import"):
        try:
            _import_package(name, root / folder)
            module = importlib.import_module(f"{name}.train")
        except ModuleNotFoundError as error:
            error.msg += _mend(error.name or "", root / folder)
            raise
    build, train = getattr(module, "build", None), getattr(module, "train", None)
    if callable(build) == callable(train):
        found = "both" if callable(build) else "neither"
        raise TrainingProblem(
            "import",
            f"train.py must have one of build(params) and train(frame, target, params); it has "
            f"{found}",
        )
    return Source(root, build, train)


def _mend(missing: str, folder: Path) -> str:
    """What to do about a module that cannot be found."""
    if (folder / f"{missing}.py").is_file() or (folder / missing).is_dir():
        return f"; it lies beside train.py: import it relatively, from .{missing} import ..."
    return "; if it is a package, add it to the dependencies in pyproject.toml and install"


def _import_package(name: str, folder: Path) -> None:
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


class _Barrier(importlib.abc.MetaPathFinder):
    """Finds modules of the exported tree there, and refuses the repository's other ones.

    The repository is on sys.path, since the platform runs from it: without this, a folder of
    source.paths would be imported as it lies in the work tree, not as it was committed.
    """

    def __init__(self, repository: Path, root: Path) -> None:
        self._root = root
        self._exported = _modules_in(root)
        self._refused = _modules_in(repository)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The exported module's spec; None leaves it to others; ImportError refuses it."""
        first, _, rest = name.partition(".")
        if first == "mlops_assets":
            if not rest or rest.partition(".")[0] in PLATFORM:
                return None
            # The platform's own package has the name; its exported part lies elsewhere.
            path = [str(self._root.joinpath(*name.split(".")[:-1]))]
            refused = True
        elif path is None and first in self._exported:
            path, refused = [str(self._root)], True
        else:
            path, refused = None, path is None and first in self._refused
        spec = None
        if path is not None:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None and refused:
            raise ImportError(self._message(name), name=name)
        return spec

    @staticmethod
    def _message(name: str) -> str:
        return (
            f"'{name}' is a module of the repository outside of what this model declares; import "
            "the model's own files relatively (from .features import ...), or list the folder "
            "in source.paths of model.yaml"
        )


def _modules_in(folder: Path) -> set[str]:
    """Names that ``import`` would find in a folder."""
    return {
        p.stem for p in folder.iterdir() if p.suffix == ".py" or (p.is_dir() and "." not in p.name)
    }
