"""Git: the commit that is released, and its files, without touching anybody's work tree."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_assets.files import digest_bytes, digest_file
from mlops_assets.references import Commit
from mlops_assets.spec import ModelSpec
from resources.git_commands import (
    DOCUMENTATION,
    REMOTE,
    GitError,
    NotInCommitError,
    commit_facts,
    fetch,
    git,
    git_bytes,
    is_ancestor,
    is_commit,
    make_bare,
    mask,
    paths_of,
    remote,
    tree_digest,
    try_git,
)
from resources.git_heads import Branch, HeadMirror, Heads, Refs, SeenCommit, no_such_branch

__all__ = ["Branch", "GitError", "GitSource", "Heads", "NotInCommitError", "SeenCommit"]

#: Where a detached head of the checkout lies in its mirror.
DETACHED = "refs/mlops/head"
#: So many repositories are asked for their heads at once.
AT_ONCE = 16


class GitSource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Commits of the repositories that models come from, through bare mirrors of our own."""

    checkout: str
    mirrors: str
    #: What source.repository '.' stands for where the checkout only runs the platform.
    repository: str | None = None

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
        branch = self.branch(spec)
        mirror = self._mirror(branch, commit)
        sha = self._commit_of(mirror, commit or self._head(mirror, branch), branch)
        if dirty:
            tree = self._work_tree_digest(spec)
        else:
            tree = tree_digest(mirror, sha, spec, mask(branch.url))
        return Commit(
            repository=branch.repository,
            branch=branch.name,
            commit=sha,
            on_branch=self._is_on_branch(mirror, sha, branch),
            dirty=dirty,
            tree=tree,
            **commit_facts(mirror, sha),
        )

    def read(self, spec: ModelSpec, commit: Commit, path: str) -> str:
        """One file's text as of a commit (or of the work tree, where the commit is dirty)."""
        if commit.dirty:
            content = (Path(self.checkout) / path).read_bytes()
        else:
            mirror = self._mirror_path(self.branch(spec))
            content = git_bytes(mirror, "show", f"{commit.commit}:{path}")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            place = f"{path} of commit {commit.commit[:10]}"
            raise GitError(f"{place}: not UTF-8: {error}; save it as UTF-8") from None

    def export(self, spec: ModelSpec, commit: Commit, to: Path) -> None:
        """Write the declared folders of a commit below ``to``."""
        if commit.dirty:
            for path in self._work_tree_files(spec, documentation=True):
                target = to / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((Path(self.checkout) / path).read_bytes())
            return
        mirror = self._mirror_path(self.branch(spec))
        archive = git_bytes(mirror, "archive", "--format=tar", commit.commit, *paths_of(spec))
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(to, filter="data")

    def uncommitted(self, spec: ModelSpec) -> list[str]:
        """Declared files of this repository's work tree that differ from its head."""
        if spec.source.repository != ".":
            return []
        checkout = Path(self.checkout)
        if self.repository and not try_git(checkout, "rev-parse", "--git-dir"):
            return []  # installed without git; nobody works there
        status = git(checkout, "status", "--porcelain", "--", *paths_of(spec))
        return [line[3:] for line in status.splitlines()]

    # -- where branches stand

    def branch(self, spec: ModelSpec) -> Branch:
        """The branch whose head is released."""
        named = spec.source.repository
        if named == "." and self.repository is None:
            return Branch(self.checkout, spec.source.branch, checkout=True)
        repository = self.repository if named == "." and self.repository else named
        local = Path(self.checkout) / repository
        url = str(local) if local.exists() else repository
        return Branch(url, spec.source.branch, checkout=False)

    def heads(self, specs: Sequence[ModelSpec]) -> Heads:
        """The heads of all the models' branches, at one ``git ls-remote`` per repository.

        What one repository or branch does not answer stands in ``Heads.errors`` and hinders no
        other.
        """
        branches = {self.branch(spec): None for spec in specs}
        asked = {branch.url: branch.checkout for branch in branches}
        asked |= {branch.url: True for branch in branches if branch.checkout}
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            answers = dict(zip(asked, pool.map(self._refs, asked, asked.values()), strict=True))
        found: dict[Branch, str] = {}
        errors: dict[Branch, GitError] = {}
        for branch in branches:
            answer = answers[branch.url]
            try:
                if isinstance(answer, GitError):
                    raise answer
                found[branch] = answer.head(branch)
            except GitError as error:
                errors[branch] = error
        return Heads(found, errors)

    def head_tree(self, spec: ModelSpec, head: str) -> str:
        """``Commit.tree`` of the commit ``head``, as ``heads`` gave it.

        Fetches the commit, once for all models, without history or contents of files.

        Raises:
            NotInCommitError: the model's folder or its model.yaml is not in that commit.
            GitError: the commit cannot be had.
        """
        return self._held(spec, head).tree(head, spec)

    def seen_commit(self, spec: ModelSpec, head: str, since: str | None = None) -> SeenCommit:
        """What the commit ``head``, as ``heads`` gave it, says about a model.

        Args:
            spec: the model as it is loaded.
            head: name of the commit, in full.
            since: the commit of the last report, to list what changed.

        Raises:
            NotInCommitError: the model's folder or its model.yaml is not in that commit.
            GitError: the commit cannot be had.
        """
        return self._held(spec, head).look(head, self.branch(spec), spec, since)

    def head_folders(self, spec: ModelSpec, head: str, folder: str) -> set[str]:
        """Names of the folders in ``folder`` of the commit ``head`` of the model's repository."""
        return self._held(spec, head).folders(head, folder)

    def _refs(self, url: str, checkout: bool) -> Refs | GitError:
        try:
            return self._head_mirror(url).refs(checkout)
        except GitError as error:
            return error  # it ends nobody else's question

    def _held(self, spec: ModelSpec, head: str) -> HeadMirror:
        branch = self.branch(spec)
        mirror = self._head_mirror(branch.url)
        mirror.hold(head, branch)
        return mirror

    def _head_mirror(self, url: str) -> HeadMirror:
        name = f"{digest_bytes(url.encode())[:16]}.heads.git"
        return HeadMirror(url, Path(self.mirrors) / name)

    # -- the mirror that releases are made from

    def _mirror_path(self, branch: Branch) -> Path:
        return Path(self.mirrors) / f"{digest_bytes(branch.url.encode())[:16]}.git"

    def _mirror(self, branch: Branch, commit: str | None) -> Path:
        """The branch's repository, fetched just now into a bare mirror."""
        mirror, options = self._mirror_path(branch), remote(branch.url)
        refs = ["+refs/heads/*:refs/heads/*"]
        if branch.checkout:
            checkout = Path(branch.url)
            git(checkout, "rev-parse", "--git-dir")  # the clearest error for «no repository»
            refs.append("+refs/remotes/origin/*:refs/remotes/origin/*")
            if is_commit(checkout, "HEAD"):
                refs.append(f"+HEAD:{DETACHED}")
        mirror.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{mirror}.lock"):
            make_bare(mirror)
            fetch(mirror, "--prune", "--update-shallow", REMOTE, *refs, options=options)
            if commit and not is_commit(mirror, commit):
                # A commit that no branch holds any more can still be asked for by its name.
                wanted = ("fetch", "--quiet", "--no-tags", REMOTE, commit)
                try_git(mirror, *wanted, options=options)
        return mirror

    def _head(self, mirror: Path, branch: Branch) -> str:
        if branch.checkout and not try_git(Path(self.checkout), "symbolic-ref", "--quiet", "HEAD"):
            return DETACHED
        for name in self._names(branch):
            if is_commit(mirror, name):
                return name
        there = git(mirror, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        raise no_such_branch(branch.name, mask(branch.url), there)

    def _names(self, branch: Branch) -> list[str]:
        names = [f"refs/heads/{branch.name}"]
        return [*names, f"refs/remotes/origin/{branch.name}"] if branch.checkout else names

    def _commit_of(self, mirror: Path, name: str, branch: Branch) -> str:
        if not is_commit(mirror, name):
            raise GitError(
                f"commit '{name}': not found in {mask(branch.url)}; "
                "give one that was pushed there, or leave it out for the branch's head"
            )
        return git(mirror, "rev-parse", "--verify", f"{name}^{{commit}}").strip()

    def _is_on_branch(self, mirror: Path, sha: str, branch: Branch) -> bool:
        """Whether the source branch holds the commit; with no such branch, a detached head does."""
        known = [name for name in self._names(branch) if is_commit(mirror, name)]
        if not known and branch.checkout:
            known = [DETACHED]
        return any(is_ancestor(mirror, sha, name) for name in known)

    # -- the work tree

    def _work_tree_files(self, spec: ModelSpec, documentation: bool = False) -> list[str]:
        if spec.source.repository != ".":
            raise GitError(
                f"source.repository '{mask(spec.source.repository)}': uncommitted files can only "
                "be trained from this repository; commit and push them there"
            )
        ask = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--")
        names = sorted(set(git(Path(self.checkout), *ask, *paths_of(spec)).split("\0")) - {""})
        return [
            name
            for name in names
            if (Path(self.checkout) / name).is_file()
            and (documentation or not name.endswith(DOCUMENTATION))
        ]

    def _work_tree_digest(self, spec: ModelSpec) -> str:
        state = hashlib.sha256(b"uncommitted\0")
        for name in self._work_tree_files(spec):
            digest = digest_file(Path(self.checkout) / name)
            state.update(f"{name}\0{digest}\0".encode(errors="surrogateescape"))
        return state.hexdigest()
