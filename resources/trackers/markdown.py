"""Revision requests as Markdown files, their pictures beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from filelock import FileLock

from mlops_assets.files import write_atomic
from resources.tracker import OpenRequest, Request, Tracker, TrackerError

#: Folder of what was closed.
CLOSED = "closed"


class MarkdownTracker(Tracker):
    """``<folder>/<model>-<cause>.md`` is open; closed ones lie in ``closed/``, numbered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """See Tracker.name."""
        return str(self._folder)

    def open_requests(self) -> list[OpenRequest]:
        """See Tracker.open_requests."""
        try:
            texts = [(p, p.read_text("utf-8")) for p in sorted(self._folder.glob("*.md"))]
        except (OSError, UnicodeDecodeError) as error:
            raise TrackerError(f"{self.name}: {error}") from None
        found = [OpenRequest.of(text, path.name, path.as_uri()) for path, text in texts]
        return [request for request in found if request is not None]

    def _create(self, request: Request) -> OpenRequest:
        stem = f"{request.model}-{request.cause}"
        path = self._folder / f"{stem}.md"
        try:
            with FileLock(self._lock()):
                shown = [_picture(stem, name) for name in sorted(request.pictures)]
                for name, png in request.pictures.items():
                    write_atomic(self._folder / _picture(stem, name), png)
                write_atomic(path, _text(request, shown))
                for old in self._pictures(stem):
                    if old.name not in shown:
                        old.unlink()
        except OSError as error:
            raise TrackerError(f"{self.name}: {error}") from None
        made = OpenRequest.of(request.marker, path.name, path.as_uri())
        assert made is not None, "a marker is read back"
        return made

    def _replace(self, found: OpenRequest, request: Request) -> None:  # noqa: ARG002
        self._create(request)  # of the same name

    def close(self, found: OpenRequest, comment: str, *, done: bool = True) -> None:
        """See Tracker.close."""
        path = self._folder / found.name
        closed = self._folder / CLOSED
        try:
            with FileLock(self._lock()):
                if not path.is_file():
                    return
                number = 1 + max((_number(p) for p in closed.glob("*.md")), default=0)
                word = "Resolved" if done else "Closed"
                text = f"{path.read_text('utf-8')}\n---\n\n**{word}.** {comment}\n"
                for picture in self._pictures(path.stem):
                    named = f"{number:04}-{picture.name}"
                    closed.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(picture, closed / named)
                    text = text.replace(f"]({picture.name})", f"]({named})")
                write_atomic(closed / f"{number:04}-{path.name}", text)
                path.unlink()
                for picture in self._pictures(path.stem):
                    picture.unlink()
        except (OSError, UnicodeDecodeError) as error:
            raise TrackerError(f"{self.name}: {error}") from None

    def _lock(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / ".lock"

    def _pictures(self, stem: str) -> list[Path]:
        return sorted(self._folder.glob(f"{stem}--*.png"))


def _text(request: Request, pictures: list[str]) -> str:
    shown = "".join(f"![{name}]({name})\n\n" for name in pictures)
    return f"# {request.title}\n\n{request.body}\n\n{shown}<!-- {request.marker} -->\n"


def _picture(stem: str, name: str) -> str:
    return f"{stem}--{re.sub(r'[^A-Za-z0-9_]+', '-', name)}.png"


def _number(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdigit() else 0
