"""Git: the commit that is released, and its files, without touching anybody's work tree."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_assets.files import digest_bytes, digest_file
from mlops_assets.references import Commit
from mlops_assets.spec import ModelSpec

#: Changes to these do not change what is trained.
DOCUMENTATION = ".md"


class GitError(Exception):
    """Git cannot give what was asked for; the message names the repository and the mend."""


class GitSource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Commits of the repositories that models come from, through bare mirrors of our own."""

    checkout: str
    mirrors: str

    def resolve(self, spec: ModelSpec, commit: str | None = None, dirty: bool = False) -> Commit:
        """The commit to release: ``commit``, or the head of the model's source branch.

        Args:
            spec: the model; its ``source`` says which repository, branch and folders.
            commit: any name git understands; the branch's head by default. In this repository a
                detached head, as CI checks one out, takes the place of the branch.
            dirty: take the uncommitted files of this repository's work tree on top.

        Raises:
            GitError: no git, no repository, no such branch or commit, no such folder in it.
        """
        mirror = self._mirror(spec, commit)
        name = commit or self._head(mirror, spec)
        sha = self._commit_of(mirror, name, spec)
        facts = _git(mirror, "show", "-s", "--format=%an <%ae>%x00%s%x00%cI", sha).strip()
        author, message, time = facts.split("\0")
        return Commit(
            repository=spec.source.repository,
            branch=spec.source.branch,
            commit=sha,
            author=author,
            message=message,
            time=time,
            on_branch=self._is_on_branch(mirror, sha, spec),
            dirty=dirty,
            tree=self._work_tree_digest(spec) if dirty else self._tree_digest(mirror, sha, spec),
        )

    def read(self, spec: ModelSpec, commit: Commit, path: str) -> str:
        """One file's text as of a commit (or of the work tree, where the commit is dirty)."""
        if commit.dirty:
            return (Path(self.checkout) / path).read_text(encoding="utf-8")
        return _git(self._mirror_path(spec), "show", f"{commit.commit}:{path}")

    def export(self, spec: ModelSpec, commit: Commit, to: Path) -> None:
        """Write the declared folders of a commit below ``to``."""
        if commit.dirty:
            for path in self._work_tree_files(spec, documentation=True):
                target = to / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((Path(self.checkout) / path).read_bytes())
            return
        archive = _git_bytes(
            self._mirror_path(spec), "archive", "--format=tar", commit.commit, *_paths(spec)
        )
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(to, filter="data")

    def uncommitted(self, spec: ModelSpec) -> list[str]:
        """Declared files of this repository's work tree that differ from its head."""
        if spec.source.repository != ".":
            return []
        status = _git(Path(self.checkout), "status", "--porcelain", "--", *_paths(spec))
        return [line[3:] for line in status.splitlines()]

    # -- the mirror

    def _url(self, spec: ModelSpec) -> str:
        repository = spec.source.repository
        if repository == ".":
            return self.checkout
        local = Path(self.checkout) / repository
        return str(local) if local.exists() else repository

    def _mirror_path(self, spec: ModelSpec) -> Path:
        return Path(self.mirrors) / f"{digest_bytes(self._url(spec).encode())[:16]}.git"

    def _mirror(self, spec: ModelSpec, commit: str | None) -> Path:
        """The model's repository, fetched just now into a bare mirror."""
        mirror, url = self._mirror_path(spec), self._url(spec)
        mirror.parent.mkdir(parents=True, exist_ok=True)
        if spec.source.repository == ".":
            _git(Path(url), "rev-parse", "--git-dir")  # the clearest error for «no repository»
        with FileLock(f"{mirror}.lock"):
            if not (mirror / "HEAD").is_file():
                _git(mirror.parent, "init", "--quiet", "--bare", str(mirror))
            refs = ["+refs/heads/*:refs/heads/*", "+HEAD:refs/mlops/head"]
            if spec.source.repository == ".":
                refs.append("+refs/remotes/origin/*:refs/remotes/origin/*")
            fetch = ("fetch", "--quiet", "--prune", "--no-tags", "--update-shallow")
            _git(mirror, *fetch, url, *refs)
            if commit and not _is_commit(mirror, commit):
                # A commit that no branch holds any more can still be asked for by its name.
                _try_git(mirror, "fetch", "--quiet", "--no-tags", url, commit)
        return mirror

    def _head(self, mirror: Path, spec: ModelSpec) -> str:
        if spec.source.repository == "." and not _try_git(
            Path(self.checkout), "symbolic-ref", "--quiet", "HEAD"
        ):
            return "refs/mlops/head"
        for name in (f"refs/heads/{spec.source.branch}", *self._remote_branch(spec)):
            if _is_commit(mirror, name):
                return name
        branches = _git(mirror, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        raise GitError(
            f"source.branch '{spec.source.branch}': no such branch in {self._url(spec)}; "
            f"there are: {', '.join(branches) or 'none, commit something first'}"
        )

    def _remote_branch(self, spec: ModelSpec) -> list[str]:
        if spec.source.repository != ".":
            return []
        return [f"refs/remotes/origin/{spec.source.branch}"]

    def _commit_of(self, mirror: Path, name: str, spec: ModelSpec) -> str:
        if not _is_commit(mirror, name):
            raise GitError(
                f"commit '{name}': not found in {self._url(spec)}; "
                "give one that was pushed there, or leave it out for the branch's head"
            )
        return _git(mirror, "rev-parse", "--verify", f"{name}^{{commit}}").strip()

    def _is_on_branch(self, mirror: Path, sha: str, spec: ModelSpec) -> bool:
        """Whether the source branch holds the commit; with no such branch, a detached head does."""
        names = (f"refs/heads/{spec.source.branch}", *self._remote_branch(spec))
        known = [name for name in names if _is_commit(mirror, name)]
        if not known:
            known = ["refs/mlops/head"]
        return any(_ancestor(mirror, sha, name) for name in known)

    # -- digests of what training depends on

    def _tree_digest(self, mirror: Path, sha: str, spec: ModelSpec) -> str:
        listing = _git(mirror, "ls-tree", "-r", "-z", sha, "--", *_paths(spec)).split("\0")
        if not any(line.partition("\t")[2] == f"{spec.folder}/model.yaml" for line in listing):
            raise GitError(
                f"{spec.folder}/model.yaml: not in commit {sha[:10]} of {self._url(spec)}; "
                "commit the folder first, or train the uncommitted files with dirty: true"
            )
        kept = [line for line in listing if line and not line.endswith(DOCUMENTATION)]
        return digest_bytes("\0".join(sorted(kept)).encode())

    def _work_tree_files(self, spec: ModelSpec, documentation: bool = False) -> list[str]:
        if spec.source.repository != ".":
            raise GitError(
                f"source.repository '{spec.source.repository}': uncommitted files can only be "
                "trained from this repository; commit and push them there"
            )
        ask = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_paths(spec))
        names = sorted(set(_git(Path(self.checkout), *ask).split("\0")) - {""})
        return [
            name
            for name in names
            if (Path(self.checkout) / name).is_file()
            and (documentation or not name.endswith(DOCUMENTATION))
        ]

    def _work_tree_digest(self, spec: ModelSpec) -> str:
        state = hashlib.sha256(b"uncommitted\0")
        for name in self._work_tree_files(spec):
            state.update(f"{name}\0{digest_file(Path(self.checkout) / name)}\0".encode())
        return state.hexdigest()


def _paths(spec: ModelSpec) -> list[str]:
    return [spec.folder, *spec.source.paths]


def _environment() -> dict[str, str]:
    # The run's own GIT_* (a hook's, say) must not redirect us; a question for a password hangs.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            check=False,
            timeout=300,
        )
    except FileNotFoundError:
        if not folder.is_dir():
            raise GitError(f"{folder}: no such folder") from None
        raise GitError("git: not found on PATH; install git") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git {arguments[0]} in {folder}: no answer within 300 s") from None


def _git_bytes(folder: Path, *arguments: str) -> bytes:
    done = _run(folder, *arguments)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        if "not a git repository" in reason:
            raise GitError(
                f"{folder}: not a git repository; models are trained from commits, so clone the "
                "repository, or make one here: git init, git add, git commit"
            )
        raise GitError(f"git {arguments[0]} in {folder}: {reason}")
    return done.stdout


def _git(folder: Path, *arguments: str) -> str:
    return _git_bytes(folder, *arguments).decode()


def _try_git(folder: Path, *arguments: str) -> bool:
    return _run(folder, *arguments).returncode == 0


def _is_commit(mirror: Path, name: str) -> bool:
    return _try_git(mirror, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")


def _ancestor(mirror: Path, sha: str, name: str) -> bool:
    return _try_git(mirror, "merge-base", "--is-ancestor", sha, name)
