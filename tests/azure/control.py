"""What is asked of the proxy itself, for demos and for processes outside a test's own.

``POST /faults`` with the fields of a Fault, or of an OperationFault under ``operation``;
``DELETE /faults``; ``GET /exchanges``; ``GET /findings``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from tests.azure.faults import Fault, Faults, OperationFault
from tests.azure.messages import Request, Response
from tests.azure.record import Record
from tests.azure.validate import Findings


class Control:
    """Answers on the proxy's own address."""

    def __init__(
        self, faults: Faults, record: Record, findings: Callable[[], Findings | None]
    ) -> None:
        self._faults, self._record, self._findings = faults, record, findings

    def answer(self, request: Request) -> Response:
        """Carry a request out."""
        try:
            return self._answer(request)
        except (TypeError, ValueError) as problem:
            return self.error(400, None, str(problem))

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error."""
        return Response.of(status, {"error": message, "code": code})

    def _answer(self, request: Request) -> Response:
        match request.method, request.path:
            case "POST", "/faults":
                asked = request.json()
                operation = asked.pop("operation", None)
                self._faults.add(OperationFault(**operation) if operation else Fault(**asked))
                return Response(204)
            case "DELETE", "/faults":
                self._faults.clear()
                return Response(204)
            case "GET", "/exchanges":
                return Response.of(200, [asdict(e) for e in self._record.exchanges()])
            case "GET", "/findings":
                found = self._findings()
                if found is None:
                    return self.error(404, None, "AZURE_SPECS_DIR is not set")
                return Response.of(200, {"summary": found.summary(), **asdict(found)})
            case _:
                return self.error(404, None, f"{request.method} {request.path} is not known")
