"""Running git: never a prompt, nothing left behind, no secret of a URL in a message."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mlops_assets.errors import UserError
from mlops_assets.files import digest_bytes, remove_tree
from mlops_assets.spec import ModelSpec

#: Changes to these do not change what is trained.
DOCUMENTATION = ".md"
#: The name that a repository's URL has while one command runs; it is never written down.
REMOTE = "mlops"
TIMEOUT_SECONDS = 300

#: Of the caller's own GIT_*, what says how to reach and to trust a repository. All others stay
#: out: a hook's GIT_DIR, say, would redirect us.
_KEPT = re.compile(
    r"GIT_(SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|ALLOW_PROTOCOL|PROXY_COMMAND|SSL_\w+"
    r"|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)|TRACE2(_EVENT)?)"
)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/\s'\"]*)@")


class GitError(UserError):
    """Git cannot give what was asked for; the message names the repository and the mend."""


class NotInCommitError(GitError):
    """The commit is there, the model's folder is not in it."""


def mask(text: str) -> str:
    """The text with ``***`` for what URLs hold before their host; the user of ssh is no secret."""

    def masked(found: re.Match[str]) -> str:
        scheme, user = found.groups()
        public = scheme.endswith("ssh://") and ":" not in user
        return f"{scheme}{user if public else '***'}@"

    return _USERINFO.sub(masked, text)


def remote(url: str, *, promisor: bool = False) -> tuple[str, ...]:
    """Options that make ``url`` the remote ``REMOTE`` of one command.

    Args:
        url: of the repository.
        promisor: files' contents that are not here are fetched from it when they are read.
    """
    options = ("-c", f"remote.{REMOTE}.url={url}")
    if not promisor:
        return options
    filtered = f"remote.{REMOTE}.partialclonefilter=blob:none"
    return (*options, "-c", f"remote.{REMOTE}.promisor=true", "-c", filtered)


@cache
def _ssh_is_configured() -> bool:
    """Whether the user's git has an ssh command of its own."""
    asked = subprocess.run(
        ["git", "config", "--get", "core.sshCommand"], cwd="/", capture_output=True, check=False
    )
    return asked.returncode == 0


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _KEPT.fullmatch(name)
    }
    if not (kept.get("GIT_SSH") or kept.get("GIT_SSH_COMMAND") or _ssh_is_configured()):
        kept["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def run(
    folder: Path,
    *arguments: str,
    options: Sequence[str] = (),
    timeout: float = TIMEOUT_SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``git OPTIONS ARGUMENTS`` in a folder.

    Raises:
        GitError: no such folder, no git, no answer within ``timeout`` seconds.
    """
    command = ["git", *options, *arguments]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # no terminal to ask on, and one group to end
        )
    except FileNotFoundError:
        if not folder.is_dir():
            raise GitError(f"{folder}: no such folder") from None
        raise GitError("git: not found on PATH; install git") from None
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # git's own children would live on
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            message = f"git {arguments[0]} in {folder}: no answer within {timeout:g} s"
            raise GitError(message) from None
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git complained of, on one line, without secrets."""
    lines = mask(done.stderr.decode(errors="replace")).splitlines()
    return "; ".join(line.strip().removeprefix("fatal: ") for line in lines if line.strip())


def git_bytes(folder: Path, *arguments: str, options: Sequence[str] = ()) -> bytes:
    """What git prints; raises GitError when it fails."""
    done = run(folder, *arguments, options=options)
    if done.returncode:
        if b"not a git repository" in done.stderr:
            raise GitError(
                f"{folder}: not a git repository; models are trained from commits, so clone the "
                "repository, or make one here: git init, git add, git commit"
            )
        raise GitError(f"git {arguments[0]} in {folder}: {reason(done)}")
    return done.stdout


def git(folder: Path, *arguments: str, options: Sequence[str] = ()) -> str:
    """What git prints, as text; bytes that are not UTF-8 survive in paths."""
    return git_bytes(folder, *arguments, options=options).decode(errors="surrogateescape")


def try_git(folder: Path, *arguments: str, options: Sequence[str] = ()) -> bool:
    """Whether git succeeds."""
    return run(folder, *arguments, options=options).returncode == 0


def make_bare(mirror: Path) -> None:
    """An empty bare repository, unless there is one; call it under the mirror's lock."""
    if (mirror / "HEAD").is_file():
        return
    mirror.parent.mkdir(parents=True, exist_ok=True)
    temporary = mirror.with_name(f".{mirror.name}.{secrets.token_hex(6)}.tmp")
    git(mirror.parent, "init", "--quiet", "--bare", str(temporary))
    remove_tree(mirror)  # what a killed process left half-made
    temporary.rename(mirror)


def fetch(mirror: Path, *arguments: str, options: Sequence[str]) -> None:
    """``git fetch ARGUMENTS``, under the mirror's lock; mends what a killed git left locked."""
    try:
        git(mirror, "fetch", "--quiet", "--no-tags", *arguments, options=options)
    except GitError as error:
        if ".lock" not in str(error):
            raise
        for left in mirror.rglob("*.lock"):
            left.unlink(missing_ok=True)
        git(mirror, "fetch", "--quiet", "--no-tags", *arguments, options=options)


def is_commit(mirror: Path, name: str) -> bool:
    """Whether the mirror holds a commit of that name."""
    return try_git(mirror, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")


def is_ancestor(mirror: Path, sha: str, name: str) -> bool:
    """Whether ``name`` holds the commit ``sha``."""
    return try_git(mirror, "merge-base", "--is-ancestor", sha, name)


def commit_facts(mirror: Path, sha: str) -> dict[str, str]:
    """Author, first line of the message and time (ISO 8601) of a commit."""
    shown = git_bytes(mirror, "show", "-s", "--format=%an <%ae>%x00%s%x00%cI", sha)
    author, message, time = shown.decode(errors="replace").strip().split("\0")
    return {"author": author, "message": message, "time": time}


def paths_of(spec: ModelSpec) -> list[str]:
    """The declared folders of a model."""
    return [spec.folder, *spec.source.paths]


def tree_digest(mirror: Path, sha: str, spec: ModelSpec, place: str) -> str:
    """Digest of what training depends on in a commit; documentation does not count.

    Raises:
        NotInCommitError: no model.yaml where the model's should be; ``place`` names the repository.
    """
    listing = git(mirror, "ls-tree", "-r", "-z", sha, "--", *paths_of(spec)).split("\0")
    if not any(line.partition("\t")[2] == f"{spec.folder}/model.yaml" for line in listing):
        raise NotInCommitError(
            f"{spec.folder}/model.yaml: not in commit {sha[:10]} of {place}; "
            "commit the folder first, or train the uncommitted files with dirty: true"
        )
    kept = [line for line in listing if line and not line.endswith(DOCUMENTATION)]
    return digest_bytes("\0".join(sorted(kept)).encode(errors="surrogateescape"))
