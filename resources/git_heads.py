"""Where branches stand, cheaply: one question per repository, and no more of a commit than needed.

A head is fetched without history and without the contents of files (of ``model.yaml`` alone), into
a mirror of its own: in the mirror that releases are made from, all of that must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from mlops_assets.files import digest_bytes
from mlops_assets.references import Commit
from mlops_assets.spec import ModelSpec, parse_model
from mlops_assets.strict import SpecError
from resources.git_commands import (
    REMOTE,
    GitError,
    commit_facts,
    fetch,
    git,
    git_bytes,
    is_commit,
    make_bare,
    mask,
    paths_of,
    reason,
    remote,
    run,
    tree_digest,
)

#: A repository that does not say its heads within this is unreachable.
LS_REMOTE_SECONDS = 20
#: So many changed files are listed; beyond, they are counted.
MOST_CHANGED = 20


@dataclass(frozen=True)
class Branch:
    """A branch of a repository; ``str`` of it shows no secret."""

    url: str = field(repr=False)
    name: str
    #: The url is the work tree that the platform runs from.
    checkout: bool

    @property
    def repository(self) -> str:
        """The repository as people may see it."""
        return "." if self.checkout else mask(self.url)

    def __str__(self) -> str:
        return f"{self.repository} {self.name}"


@dataclass(frozen=True)
class Heads:
    """The commits at the heads of branches, and why some could not be had."""

    found: Mapping[Branch, str]
    errors: Mapping[Branch, GitError]


@dataclass(frozen=True)
class SeenCommit:
    """The head of a model's branch, as far as one must know to decide."""

    commit: Commit
    #: What the commit's model.yaml says; None where it cannot be parsed.
    spec: ModelSpec | None
    #: Why it cannot be parsed.
    problem: str
    #: Paths changed below the model's folders since the last report, ``MOST_CHANGED`` at most.
    changed: tuple[str, ...]
    #: How many changed; None where the last report's commit is not known here.
    changed_files: int | None


@dataclass(frozen=True)
class Refs:
    """What a repository says of itself: the names it holds and their commits."""

    by_name: Mapping[str, str]
    detached: bool

    def head(self, branch: Branch) -> str:
        """The commit at the head of a branch.

        Of the work tree that the platform runs from, a detached head takes the branch's place,
        and the remote's branch that of one never checked out.

        Raises:
            GitError: no such branch.
        """
        names = [f"refs/heads/{branch.name}"]
        if branch.checkout:
            names.append(f"refs/remotes/origin/{branch.name}")
            if self.detached:
                names = ["HEAD"]
        for name in names:
            if name in self.by_name:
                return self.by_name[name]
        prefix = "refs/heads/"
        there = sorted(n.removeprefix(prefix) for n in self.by_name if n.startswith(prefix))
        raise no_such_branch(branch.name, mask(branch.url), there)


def no_such_branch(name: str, place: str, there: list[str]) -> GitError:
    """The error for a branch that a repository does not have."""
    shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return GitError(
        f"source.branch '{name}': no such branch in {place}; "
        f"there are: {shown or 'none, commit something first'}"
    )


@dataclass(frozen=True)
class HeadMirror:
    """The heads of one repository."""

    url: str = field(repr=False)
    path: Path

    def refs(self, checkout: bool) -> Refs:
        """Ask the repository for its branches; of a checkout for its HEAD as well.

        Raises:
            GitError: it does not answer, within ``LS_REMOTE_SECONDS``.
        """
        self._make()  # asked from there, only the user's own configuration counts
        wanted = ["--symref"] if checkout else ["--heads"]
        try:
            done = run(
                self.path,
                "ls-remote",
                *wanted,
                REMOTE,
                options=remote(self.url),
                timeout=LS_REMOTE_SECONDS,
            )
            complaint = reason(done) if done.returncode else ""
        except GitError as error:
            complaint = str(error)
        else:
            if not done.returncode:
                return _parse_refs(done.stdout.decode(errors="replace"))
        raise GitError(
            f"{mask(self.url)}: cannot be reached: {complaint}; check the URL and that this "
            "machine's git has credentials for it (git ls-remote must work without a question)"
        )

    def hold(self, sha: str, branch: Branch) -> None:
        """Have a commit, its trees and every model.yaml of it here; fetched once."""
        if self.path.is_dir() and is_commit(self.path, sha):
            return
        options = remote(self.url, promisor=True)
        with FileLock(f"{self.path}.lock"):
            make_bare(self.path)
            if is_commit(self.path, sha):
                return
            kept = f"refs/mlops/{digest_bytes(str(branch).encode())[:16]}"
            wanted = ("--depth", "1", "--filter=blob:none", REMOTE, f"+{sha}:{kept}")
            fetch(self.path, *wanted, options=options)
        # Git fetches what a patch needs in one go, and file by file what is read.
        files = ("--", ":(glob)**/model.yaml")
        git_bytes(
            self.path, "diff-tree", "--root", "-r", "-p", "--no-renames", sha, *files,
            options=options,
        )  # fmt: skip

    def tree(self, sha: str, spec: ModelSpec) -> str:
        """As ``Commit.tree`` of a commit that is held; raises NotInCommitError."""
        return tree_digest(self.path, sha, spec, mask(self.url))

    def look(self, sha: str, branch: Branch, spec: ModelSpec, since: str | None) -> SeenCommit:
        """What a commit that is held says about a model; raises NotInCommitError."""
        commit = Commit(
            repository=branch.repository,
            branch=branch.name,
            commit=sha,
            on_branch=True,
            dirty=False,
            tree=self.tree(sha, spec),
            **commit_facts(self.path, sha),
        )
        found, problem = self._model_yaml(sha, spec)
        changed = self._changed(sha, spec, since)
        return SeenCommit(
            commit=commit,
            spec=found,
            problem=problem,
            changed=tuple(changed or ())[:MOST_CHANGED],
            changed_files=None if changed is None else len(changed),
        )

    def folders(self, sha: str, folder: str) -> set[str]:
        """Names of the folders right below a folder of a commit that is held."""
        listing = git(self.path, "ls-tree", "-d", "-z", "--name-only", sha, "--", f"{folder}/")
        return {name.rpartition("/")[2] for name in listing.split("\0") if name}

    def _make(self) -> None:
        if not (self.path / "HEAD").is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                make_bare(self.path)

    def _model_yaml(self, sha: str, spec: ModelSpec) -> tuple[ModelSpec | None, str]:
        path = f"{spec.folder}/model.yaml"
        options = remote(self.url, promisor=True)
        content = git_bytes(self.path, "show", f"{sha}:{path}", options=options)
        where = f"{path} of commit {sha[:10]}"
        try:
            return parse_model(content.decode(), spec.name, where), ""
        except UnicodeDecodeError as error:
            return None, f"{where}: not UTF-8: {error}"
        except SpecError as error:
            return None, str(error)

    def _changed(self, sha: str, spec: ModelSpec, since: str | None) -> list[str] | None:
        if since is None or not is_commit(self.path, since):
            return None
        names = git_bytes(
            self.path, "diff-tree", "-r", "-z", "--no-renames", "--name-only", since, sha, "--",
            *paths_of(spec),
        )  # fmt: skip
        return [name for name in names.decode(errors="replace").split("\0") if name]


def _parse_refs(text: str) -> Refs:
    found: dict[str, str] = {}
    symbolic = False
    for line in text.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            symbolic = symbolic or name == "HEAD"
        else:
            found[name] = value
    return Refs(found, detached="HEAD" in found and not symbolic)
