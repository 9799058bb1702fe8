"""How resources come by Azure's clients."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import dagster as dg
from pydantic import PrivateAttr

from resources.azure.blobs import Blobs
from resources.azure.clients import AzureClients


class OnAzure(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """A resource that asks Azure; its clients are no part of its configuration.

    Where one depends on other resources, its module does without ``from __future__ import
    annotations``: Dagster reads the annotation as it stands.
    """

    _clients: AzureClients = PrivateAttr()

    @classmethod
    def of(cls, clients: AzureClients, **fields: Any) -> Self:
        """The resource with its fields, and the profile's clients; nothing is asked yet."""
        made = cls(**fields)
        made._clients = clients
        return made

    @cached_property
    def _blobs(self) -> Blobs:
        """What the platform's container holds."""
        return Blobs(self._clients)
