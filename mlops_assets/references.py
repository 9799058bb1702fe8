"""What travels between assets: small frozen references; the bytes lie in the artifact store."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Reference(BaseModel):
    """Base of all references."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str


class Commit(BaseModel):
    """One commit of a model's source, or the uncommitted files on top of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    branch: str
    commit: str
    author: str
    message: str
    time: str
    on_branch: bool
    dirty: bool = False
    #: Digest of the source files that training depends on.
    tree: str
    #: The branch that an experiment was made on; None for a release.
    experiment: str | None = None


class ReleasedCommit(Reference):
    """The commit that one run releases."""

    commit: Commit
    #: What was asked for, by that name; None for the head of the source branch.
    requested: str | None
    #: The version of training_code that this answers, and the contract that it declares: its own
    #: where it is the branch's head, else the last ones reported; empty where there is no report.
    code: str
    contract: str


class DatasetSnapshot(Reference):
    """An immutable, content-addressed copy of a data set that met its contract."""

    digest: str
    rows: int
    #: Digest of the contract it met.
    contract: str
    #: The commit whose model.yaml declared the contract.
    commit: Commit


class TrainedModel(Reference):
    """A fitted estimator with its evidence, in the artifact store under its identity."""

    identity: str
    #: The model's folder inside its source, a POSIX path.
    folder: str
    snapshot: DatasetSnapshot
    commit: Commit
    packages: dict[str, str]
    python: str
    platform: str


class RegisteredModel(Reference):
    """One immutable version in the registry."""

    version: int
    digest: str
    identity: str
    #: Increases with every release, so that a revert is newer than what it reverts.
    release: int


class Package(Reference):
    """A version as the files that an application takes in."""

    version: int
    digest: str
    folder: str
    #: Name -> SHA-256.
    files: dict[str, str]


class Endpoint(Reference):
    """A URL that serves one version of a model in one environment."""

    environment: str
    version: int
    digest: str
    url: str
