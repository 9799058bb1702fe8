"""Branches of the checkout that people work in; nobody's uncommitted work is ever touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resources.git_commands import GitError, git, is_commit, run, try_git

LOCAL, REMOTE = "refs/heads/", "refs/remotes/origin/"


@dataclass(frozen=True)
class Work:
    """What is worked on."""

    #: Name of the branch; of a detached head, the commit's.
    branch: str
    commit: str
    #: Whether the work tree is on that branch, so that its uncommitted files belong to it.
    here: bool
    #: What was done to get there, for people; empty for nothing.
    done: str


def current(checkout: Path) -> Work:
    """What the work tree is on.

    Raises:
        GitError: no repository, or one without a commit.
    """
    if not is_commit(checkout, "HEAD"):
        git(checkout, "rev-parse", "--git-dir")  # the clearest error for «no repository»
        raise GitError(f"{checkout}: no commit yet; make one: git add, git commit")
    commit = git(checkout, "rev-parse", "HEAD").strip()
    named = run(checkout, "symbolic-ref", "--quiet", "--short", "HEAD")
    branch = named.stdout.decode(errors="replace").strip() if not named.returncode else commit[:12]
    return Work(branch, commit, here=True, done="")


def work_on(checkout: Path, branch: str, start: str) -> Work:
    """Have a branch, and have it checked out where that loses nothing.

    Args:
        checkout: the clone.
        branch: its name; made where neither the clone nor its origin has one.
        start: the branch that a new one begins at.

    Raises:
        GitError: no name for a branch, or nothing that it could begin at.
    """
    if branch.startswith("-") or not try_git(checkout, "check-ref-format", "--branch", branch):
        raise GitError(f"'{branch}' is no name for a branch; give one such as revise/penguins-3")
    now = current(checkout)
    if now.branch == branch:
        return now
    done = _have(checkout, branch, start)
    commit = head_of(checkout, branch)
    if git(checkout, "status", "--porcelain", "--untracked-files=no").strip():
        why = "the work tree has uncommitted changes and stays as it is"
    else:
        switched = run(checkout, "switch", "--quiet", "--no-guess", branch)
        if not switched.returncode:
            return Work(branch, commit, here=True, done=f"{done}switched to {branch}")
        why = "git does not switch to it, and the work tree stays as it is"
    return Work(branch, commit, here=False, done=f"{done}{why}; {branch} is taken as committed")


def _have(checkout: Path, branch: str, start: str) -> str:
    if is_commit(checkout, f"{LOCAL}{branch}"):
        return ""
    if is_commit(checkout, f"{REMOTE}{branch}"):
        git(checkout, "branch", "--quiet", "--track", branch, f"origin/{branch}")
        return f"{branch} is origin's; "
    git(checkout, "branch", "--quiet", "--no-track", branch, head_of(checkout, start))
    return f"made {branch} at the head of {start}; "


def head_of(checkout: Path, branch: str) -> str:
    """The commit that a branch of the clone, else of its origin, stands at.

    Raises:
        GitError: neither has such a branch.
    """
    for name in (f"{LOCAL}{branch}", f"{REMOTE}{branch}"):
        if is_commit(checkout, name):
            return git(checkout, "rev-parse", "--verify", f"{name}^{{commit}}").strip()
    raise GitError(f"{checkout}: neither the clone nor its origin has a branch {branch}; fetch it")
