"""Requests to blob storage that are sent again: as to the rest of Azure."""

from __future__ import annotations

from typing import Any

#: How often a request is sent again that was throttled, dropped or met an error of Azure's own.
RETRIES = 5
#: Seconds before the third attempt; each further one waits twice as long, or as long as it is told.
PAUSE_SECONDS = 0.8


def storage_retries() -> Any:
    """A policy for azure-storage-blob, in place of its own.

    Its own does not know status 429, does not read Retry-After, and begins with a wait of 15 s.
    """
    from azure.core.pipeline import PipelineRequest, PipelineResponse
    from azure.core.pipeline.policies import RetryPolicy

    class StorageRetries(RetryPolicy[Any, Any]):
        """azure-core's, between the storage client's other policies."""

        def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
            options = request.context.options
            mode = options.pop("location_mode", None)
            for name in ("hosts", "retry_to_secondary"):  # of the storage client's own policy
                options.pop(name, None)
            response = super().send(request)
            response.http_response.location_mode = mode  # read where listings are paged
            return response

    return StorageRetries(
        retry_total=RETRIES,
        retry_connect=RETRIES,
        retry_read=RETRIES,
        retry_status=RETRIES,
        retry_backoff_factor=PAUSE_SECONDS / 2,
    )
