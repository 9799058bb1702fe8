"""Where a revision of a model is asked for: an issue tracker, or a file of this machine.

One request is open per model and cause. What says so is the tracker itself: a line in the
request's body names the model, the cause, the version that served, and the digest of the content.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mlops_assets.errors import UserError
from mlops_assets.files import digest_json
from mlops_assets.strict import SpecError
from resources.delivery import is_loopback

TRACKER = "MLOPS_TRACKER"
TOKEN = "MLOPS_TRACKER_TOKEN"  # noqa: S105  (a variable's name)
URL = "MLOPS_TRACKER_URL"

#: What requests of ours are found by, as a label or a tag.
LABEL = "mlops-revision"

_MARKER = re.compile(
    r"mlops-revision model=(?P<model>[\w-]+) cause=(?P<cause>[\w-]+) version=(?P<version>\d+) "
    r"content=(?P<content>[0-9a-f]{16})"
)
_GITHUB = re.compile(r"github:(?P<owner>[A-Za-z0-9-]+)/(?P<name>[\w.-]+)", re.ASCII)
_AZURE = re.compile(r"azure-devops:(?P<owner>[A-Za-z0-9-]+)/(?P<name>[^/\\?#:*\"<>|%]+)", re.ASCII)


class TrackerError(UserError):
    """The tracker did not do what was asked; says which, why and the mend, and no secret."""


class UnclearError(TrackerError):
    """Nobody knows whether the tracker did what was asked: it gave no answer, or broke."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    model: str
    cause: str
    #: The version whose revision is asked for.
    version: int
    title: str
    #: Markdown.
    body: str
    #: Name -> PNG. Shown where the tracker can keep files.
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def marker(self) -> str:
        """The line that the request is found again by."""
        content = digest_json({"title": self.title, "body": self.body})[:16]
        return (
            f"mlops-revision model={self.model} cause={self.cause} version={self.version} "
            f"content={content}"
        )


@dataclass(frozen=True)
class OpenRequest:
    """A request as the tracker has it."""

    model: str
    cause: str
    version: int
    #: As the tracker names it: a number, a file's name.
    name: str
    #: Where people read it.
    url: str
    #: Digest of the content that it was last given.
    content: str
    #: How often it was changed, where the tracker counts that.
    revision: int = 0

    @classmethod
    def of(cls, text: str | None, name: str, url: str, revision: int = 0) -> OpenRequest | None:
        """Read it from its body; None for a text without a marker."""
        found = _MARKER.search(text or "")
        if found is None:
            return None
        model, cause = found["model"], found["cause"]
        return cls(model, cause, int(found["version"]), name, url, found["content"], revision)


class Tracker(ABC):
    """Keeps revision requests; everything may be asked again after whatever went wrong."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What people call it."""

    @abstractmethod
    def open_requests(self) -> list[OpenRequest]:
        """All open requests of ours, oldest first.

        Raises:
            TrackerError: no answer, or none that could be used.
        """

    @abstractmethod
    def _create(self, request: Request) -> OpenRequest: ...

    @abstractmethod
    def _replace(self, found: OpenRequest, request: Request) -> None: ...

    @abstractmethod
    def close(self, found: OpenRequest, comment: str, *, done: bool = True) -> None:
        """Close a request with a comment; one that is closed already stays as it is.

        Args:
            found: the request.
            comment: Markdown.
            done: what was asked for was done; False for a request that was none.

        Raises:
            TrackerError: it is not closed, or nobody knows.
        """

    def find_open(self, model: str, cause: str) -> OpenRequest | None:
        """The open request of a model and cause; the oldest, should there be several."""
        return next((r for r in self.open_requests() if (r.model, r.cause) == (model, cause)), None)

    def open(self, request: Request) -> OpenRequest:
        """Have a request open with this content: the one there is, else a new one.

        Raises:
            TrackerError: it is not there, or nobody knows; the same again does no harm.
        """
        found = self.find_open(request.model, request.cause)
        if found is not None:
            self.update(found, request)
            return self.find_open(request.model, request.cause) or found
        try:
            return self._only(self._create(request))
        except UnclearError:
            # It may be there all the same. Where it is not, it is asked for once more.
            self._settle()
            found = self.find_open(request.model, request.cause)
            return found or self._only(self._create(request))

    def update(self, found: OpenRequest, request: Request) -> bool:
        """Give an open request another content; False, and nothing done, for the same content.

        Raises:
            TrackerError: it has the old content, or nobody knows.
        """
        if request.marker.endswith(f"version={found.version} content={found.content}"):
            return False
        self._replace(found, request)
        return True

    def comment(self, number: int, text: str, marker: str) -> str:
        """Have one comment with a marker on a pull request; returns its URL.

        Args:
            number: of the pull request.
            text: Markdown.
            marker: identifies the comment; that one is changed, not repeated.

        Raises:
            TrackerError: it is not there, or nobody knows; the same again does no harm.
        """
        del number, text, marker
        raise TrackerError(
            "comments go to pull requests of GitHub or Azure DevOps: set "
            f"{TRACKER}=github:OWNER/REPOSITORY or azure-devops:ORGANISATION/PROJECT"
        )

    def _settle(self) -> None:  # noqa: B027  (files are there at once)
        """Wait until what was just made can be found."""

    def _only(self, made: OpenRequest) -> OpenRequest:
        """What was made, unless somebody else was quicker: then it is closed again."""
        first = self.find_open(made.model, made.cause)
        if first is None or first.name == made.name:
            return made
        self.close(made, f"The same is asked for in {first.name}.", done=False)
        return first


@dataclass(frozen=True)
class TrackerSettings:
    """Where requests go."""

    kind: str = "markdown"
    #: Owner of the repository, or organisation.
    owner: str = ""
    #: Of the repository or project.
    project: str = ""
    #: Root of the REST API.
    url: str = ""
    token: str = field(default="", repr=False)

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> TrackerSettings:
        """Read ``MLOPS_TRACKER*``; without them requests are files below the state folder.

        ``MLOPS_TRACKER`` is ``github:OWNER/REPOSITORY`` or ``azure-devops:ORGANISATION/PROJECT``,
        ``MLOPS_TRACKER_TOKEN`` the name of the variable with the token, ``MLOPS_TRACKER_URL`` the
        root of the REST API where it is not the public one's.

        Raises:
            SpecError: with the first variable that is wrong; it never repeats a secret.
        """
        value = variables.get(TRACKER, "").strip()
        if not value:
            return cls()
        github, azure = _GITHUB.fullmatch(value), _AZURE.fullmatch(value)
        found = github or azure
        if found is None or found["name"].strip(". ") == "":
            raise _wrong(
                TRACKER, "must be github:OWNER/REPOSITORY or azure-devops:ORGANISATION/PROJECT"
            )
        kind = "github" if github else "azure-devops"
        url, named = ("https://api.github.com", "GITHUB_TOKEN")
        if azure:
            url, named = ("https://dev.azure.com", "AZURE_DEVOPS_EXT_PAT")
        named = variables.get(TOKEN, "").strip() or named
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", named):
            raise _wrong(TOKEN, "must be the name of the variable with the token, not the token")
        token = variables.get(named, "").strip()
        if not token:
            raise _wrong(named, f"missing, or empty: the token for {value}; see {TOKEN}")
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise _wrong(named, "holds what no token holds: white space, or no ASCII")
        given = _url(variables.get(URL, "").strip())
        return cls(kind, found["owner"], found["name"].strip(), given or url, token)


def build_tracker(settings: TrackerSettings, home: Path) -> Tracker:
    """The tracker of the settings; ``home`` is the state folder."""
    if settings.kind == "github":
        from resources.trackers.github import GitHubTracker

        return GitHubTracker(settings)
    if settings.kind == "azure-devops":
        from resources.trackers.azure_devops import AzureDevOpsTracker

        return AzureDevOpsTracker(settings)
    from resources.trackers.markdown import MarkdownTracker

    return MarkdownTracker(home / "revisions")


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        host, fine = url.hostname or "", url.port != 0
    except ValueError:
        url, host, fine = urlsplit(""), "", False
    secure = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
    if (value and not (fine and host and secure)) or url.username or url.query or url.fragment:
        raise _wrong(URL, "must be a URL such as https://github.example.org/api/v3, without user")
    return value.rstrip("/")


def _wrong(variable: str, problem: str) -> SpecError:
    return SpecError(f"environment variable {variable}", [problem])
