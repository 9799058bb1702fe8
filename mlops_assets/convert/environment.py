"""The environment of a deployment: v1's own description, its name, or older keys."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.convert import values
from mlops_assets.convert.book import Book, Found
from mlops_assets.convert.paths import find, relative, slashes
from mlops_assets.convert.report import is_secret

_PLACE = "deployment.json: environment"
#: What v1's last version ran where no image is named.
_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04:latest"
_SERVER = (
    f"{_PLACE}: v1 added the inference server to the image; name azureml-inference-server-http "
    "among the conda file's pip packages"
)


# Of v1's Environment: what says where and how it was built, and how a training run started it.
_NO_PART = [
    ("spark",), ("r",), ("assetId",), ("autoRebuild",), ("databricks",),
    *(("docker", key) for key in (
        "enabled", "arguments", "sharedVolumes", "shmSize", "gpuSupport", "platform",
        "buildContext", "baseImageRegistry",
    )),
    *(("python", key) for key in (
        "interpreterPath", "condaDependenciesFile", "baseCondaEnvironment",
    )),
]  # fmt: skip


def named(book: Book) -> str | None:
    """``environment: my-env``, ``my-env:3`` or ``azureml:my-env:3``."""
    entry = book.source.entries["environment",]
    found = book.take("environment", values.text)
    bare = str(found.value).removeprefix("azureml:")
    if found.value is None or not re.fullmatch(r"[\w.-]+(:[\w.-]+|@latest)?", bare):
        book.problem(entry, "must be an environment's keys, or its name as NAME:VERSION")
        return None
    reference = _reference(bare)
    book.read_as(entry, f'{_PLACE} = "{reference}"', "v1 wanted the environment's keys")
    return reference


def _reference(name: str) -> str:
    return f"azureml:{name}" if ":" in name or "@" in name else f"azureml:{name}@latest"


def described(book: Book) -> Any:
    """v1's Environment, as `az ml environment download` wrote it."""
    prefix = "environment."
    name = book.take(f"{prefix}name", values.text)
    version = book.take(f"{prefix}version", values.text)
    image = _image(book)
    conda = _conda(book)
    dockerfile = book.take(f"{prefix}docker.baseDockerfile", values.anything)
    book.lose(
        dockerfile,
        "build the image from it and name it as environment.image, or use environment.build",
    )
    for path in _NO_PART:
        book.lose_below(("environment", *path), "no part of a v2 environment")
    stack = book.take(f"{prefix}inferencingStackVersion", values.anything)
    book.lose(stack, "v2 takes the server from the image or from the conda file")
    if image or conda or dockerfile.value:
        reason = "an environment inside a deployment has no name; v2 makes one from its content"
        book.lose(name, reason)
        book.lose(version, reason)
        if conda and not re.search("azureml-defaults|inference-server", str(conda)):
            book.open_ends.append(_SERVER)
        if dockerfile.value and not image:
            book.open_ends.append(f"{_PLACE}.image: the image that baseDockerfile makes")
            return None
        return _inline(book, image, conda)
    if name.value is None:
        book.lose(name, "v1 took it as absent")
        book.lose(version, "says nothing without a name")
        book.open_ends.append(f"{_PLACE}: neither a name nor an image is given")
        return None
    bare = name.value + (f":{version.value}" if version.value else "")
    reference = _reference(bare)
    if not re.fullmatch(r"azureml:[\w.-]+(:[\w.-]+|@latest)", reference):
        book.problem(name.entry or version.entry, "no name of an environment that Azure takes")
    book.keep(name, f'{_PLACE} = "{reference}"')
    book.keep(version, f'{_PLACE} = "{reference}"')
    return reference


def _inline(book: Book, image: str | None, conda: Any) -> dict[str, Any]:
    if image is None:
        book.change(
            Found("baseImage", None, None),
            f'{_PLACE}.image = "{_CPU_IMAGE}"',
            "v1 chose by its own version, this is its last one's; v2 chooses none",
        )
    return {"image": image or _CPU_IMAGE} | ({"conda_file": conda} if conda else {})


def _image(book: Book) -> str | None:
    prefix = "environment.docker."
    return _image_of(
        book,
        book.take(f"{prefix}baseImage", values.text),
        book.take(f"{prefix}baseImageRegistry.address", values.text),
        [f"{prefix}baseImageRegistry.{key}" for key in ("username", "password")],
    )


def _image_of(book: Book, image: Found, address: Found, secrets: list[str]) -> str | None:
    for key in secrets:
        book.lose(
            book.take(key, values.anything),
            "part of a login; give the workspace's identity AcrPull, or make a connection to it",
        )
    if image.value is None:
        book.lose(image, "v1 took it as absent")
        book.lose(address, "says nothing without an image")
        return None
    whole = image.value
    if address.value and not whole.startswith(address.value):
        whole = f"{address.value.rstrip('/')}/{whole}"
    for found in (image, address):
        book.keep(found, f'{_PLACE}.image = "{whole}"')
    return whole


def _conda(book: Book) -> Any:
    path = ("environment", "python", "condaDependencies")
    managed = book.take("environment.python.userManagedDependencies", values.boolean)
    conda = book.source.group(*path)
    if managed.value:
        book.keep(managed, "", "the image has its own Python: no conda_file")
        book.lose_below(path, "userManagedDependencies is true, so v1 never installed it")
        return None
    book.keep(managed, f"{_PLACE}.conda_file")
    if not conda:
        return None
    if not isinstance(conda, dict):
        book.problem(book.below(path)[0], "must be the content of a conda file")
        return None
    if is_secret((), str(conda)):
        book.problem(book.below(path)[0], "holds a secret, in a URL perhaps; take it out")
        return None
    for entry in book.below(path):
        place = ".".join(entry.path[len(path) :])
        book.keep(book.claim(entry), f"{_PLACE}.conda_file.{place}")
    return conda


def older(book: Book, folder: Path) -> dict[str, Any] | None:
    """Keys from before v1 had environments."""
    runtime = book.take("runtime", values.text)
    if (runtime.value or "python").lower().startswith("python"):
        book.keep(runtime, _PLACE, "image and conda file say it")
    else:
        book.lose(runtime, "online endpoints of v2 have no Spark; rewrite score.py")
    registry = "baseImageRegistry"
    grouped = isinstance(book.source.group(registry), dict)
    address = book.take(f"{registry}.address" if grouped else registry, values.text)
    image = _image_of(
        book,
        book.take("baseImage", values.text),
        address,
        [f"{registry}.{key}" for key in ("username", "password")],
    )
    gpu, cuda = book.take("enableGpu", values.boolean), book.take("cudaVersion", values.text)
    if gpu.value and image is None:
        image = _GPU_IMAGE
        book.keep(gpu, f'{_PLACE}.image = "{image}"', "v1's own for GPUs, of its last version")
    elif gpu.value:
        book.lose(gpu, "the image decides")
    else:
        book.keep(gpu, "", "off, as without it")
    book.lose(cuda, "the image decides: name one with the CUDA version that you need")
    book.lose(
        book.take("extraDockerfileSteps", values.anything),
        "build an image with these steps, and name it as environment.image",
    )
    book.lose(
        book.take("schemaFile", values.anything),
        "v1 stopped reading it; the schema comes from decorators in score.py",
    )
    conda = _conda_file(book, folder)
    if image is None and conda is None and runtime.value is None:
        book.open_ends.append(f"{_PLACE}: v1 was given none; name one as azureml:NAME:VERSION")
        return None
    if conda is not None:
        book.open_ends.append(_SERVER)
    return _inline(book, image, conda)


def _conda_file(book: Book, folder: Path) -> str | None:
    found = book.take("condaFile", values.text)
    if found.value is None:
        book.lose(found, "v1 took it as absent")
        return None
    path = slashes(found.value)
    source = book.source.group("sourceDirectory")
    beside = posixpath.join(slashes(source), path) if isinstance(source, str) else path
    for candidate in (beside, path):
        file = find(book.source.path, candidate)
        if file and _is_conda(file):
            place = relative(file, folder)
            book.keep(found, f'{_PLACE}.conda_file = "{place}"')
            return place
    book.lose(
        found,
        "there is no conda file at that place, and Azure's client refuses a deployment without "
        "it; once it is there, write its path as environment.conda_file",
    )
    return None


def _is_conda(path: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def ignore_older(book: Book) -> None:
    """Older keys beside an environment: v1's documentation says that they are ignored."""
    for key in (
        "runtime", "condaFile", "extraDockerfileSteps", "enableGpu", "baseImage",
        "baseImageRegistry", "cudaVersion", "schemaFile",
    ):  # fmt: skip
        book.lose(
            book.take(key, values.anything), "the environment counts; v1 refused this beside it"
        )
