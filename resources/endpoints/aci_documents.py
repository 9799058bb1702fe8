"""``container-group.json``: the container group of an environment, read, judged and rendered.

It is the body that Azure Resource Manager takes, with its ``name``; ``az container create --file``
reads it too. ``${NAME}`` stands for an environment variable, ``${MLOPS_FQDN}`` for the name under
which the group is asked: what a sidecar needs to get its certificate.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_json
from mlops_assets.strict import SpecError
from resources.azure.clients import AzureClients
from resources.azure.document_files import own_or_common, read_object
from resources.environment import CapturePolicy, Environment, Profile

FILE = "container-group.json"
#: Our own container; all others are left as they are.
SCORING = "scoring"
CANDIDATE = "-candidate"
FQDN = "MLOPS_FQDN"
GENERATION_URL, INSTANCE = "MLOPS_GENERATION_URL", "MLOPS_INSTANCE"
#: Tags by which a group is known.
MODEL_TAG, ENVIRONMENT_TAG, SPEC_TAG = "mlops_model", "mlops_environment", "mlops_spec"
CANDIDATE_TAG = "mlops_candidate"
HTTPS = 443
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
#: Longest name of a group that leaves room for its candidate's.
_LONGEST = 63 - len(CANDIDATE)
#: What the server takes from the generation; said twice it would not start.
_OURS = {
    "MLOPS_BUNDLE", "MLOPS_BUNDLE_URL", "MLOPS_KEYS", "MLOPS_NO_KEYS", "MLOPS_PRIMARY_KEY",
    "MLOPS_SECONDARY_KEY",
}  # fmt: skip
#: Places of a document, by the last key, that hold secrets.
_SECRETS = {"secureValue", "password", "storageAccountKey", "workspaceKey"}
#: Keys of a document that Azure's tools read, and the request's body must not have.
_NOT_SENT = {"$schema", "apiVersion", "id", "name", "type"}


@dataclass(frozen=True, slots=True)
class Group:
    """One container group, as it is to be."""

    name: str
    #: What is sent, but for the tag and the variable that say which one of several starts this is.
    body: dict[str, Any]
    #: SHA-256 of all of it; another one asks for a restart.
    spec: str


def place_of(profile: Profile, environment: str, model: str) -> Path:
    """The file with the group of a model in an environment: its own, or the common one."""
    return own_or_common(profile.documents_of(environment), model, FILE)


def read(path: Path) -> dict[str, Any]:
    """A document; raises SpecError."""
    found = read_object(path)
    if not isinstance(found.get("properties"), dict):
        raise SpecError(path, ["must be an object with name, location and properties"])
    return found


def group_of(
    profile: Profile, clients: AzureClients, environment: Environment, model: str
) -> Group:
    """The group of a model in an environment, rendered; raises SpecError with every problem."""
    path = place_of(profile, environment.name, model)
    document = read(path)
    missing = missing_variables(document)
    if missing:
        raise SpecError(path, [f"environment variable {name} is not set" for name in missing])
    found = problems(document)
    if found:
        raise SpecError(path, found)
    own = path.parent.name == model
    return render(document, clients, environment, model, own=own)


def name_of(profile: Profile, environment: str, model: str) -> str:
    """The name of a model's group in an environment; raises SpecError."""
    path = place_of(profile, environment, model)
    return _prefix(path.parent.name == model, model) + read(path)["name"]


def _prefix(own: bool, model: str) -> str:
    """What a name in a document is preceded by: nothing in the model's own."""
    return "" if own else f"{model.replace('_', '-')}-"


def missing_variables(
    document: Mapping[str, Any], variables: Mapping[str, str] | None = None
) -> list[str]:
    """Environment variables that a document names and that are not set."""
    variables = os.environ if variables is None else variables
    named = set(_VARIABLE.findall(json.dumps(document))) - {FQDN}
    return sorted(name for name in named if not variables.get(name))


def problems(document: dict[str, Any], variables: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a document, each with its mend; empty if nothing is.

    Args:
        document: as it was read.
        variables: ``os.environ`` by default; an image whose variable is not set is not judged.
    """
    variables = os.environ if variables is None else variables
    filled = _filled(document, lambda name: variables.get(name, f"${{{name}}}"))
    containers: list[dict[str, Any]] = filled["properties"].get("containers") or []
    return [
        *_name_problems(filled),
        *_image_problems(containers),
        *_server_problems(filled, containers),
        *_network_problems(filled["properties"], containers),
        *_secret_problems(document, ""),
    ]


def _name_problems(document: Mapping[str, Any]) -> list[str]:
    name = document.get("name", "")
    if _NAME.fullmatch(name) and len(name) <= _LONGEST:
        return []
    return [f"name: '{name}' must be small letters, digits and hyphens, at most {_LONGEST}"]


def _image_problems(containers: list[dict[str, Any]]) -> list[str]:
    return [
        f"container {container.get('name')}: image: '{image}' must name a digest, "
        "NAME@sha256:...; a tag is moved"
        for container in containers
        if not _PINNED.fullmatch(image := container.get("properties", {}).get("image", ""))
        and "${" not in image
    ]


def _server_problems(document: Mapping[str, Any], containers: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    ours = [c for c in containers if c.get("name") == SCORING]
    if len(ours) != 1:
        found.append(f"containers: one must be named '{SCORING}': it runs the platform's server")
    for container in ours:
        names = {v.get("name") for v in container["properties"].get("environmentVariables") or []}
        found += [
            f"container {SCORING}: environmentVariables: {name}: leave it out; versions and keys "
            "come from blob storage"
            for name in sorted(names & _OURS)
        ]
    if not (document.get("identity") or {}).get("type", "None").endswith("Assigned"):
        found.append(
            "identity: none; the server reads its versions as the group's managed identity, which "
            "needs the role Storage Blob Data Contributor on the platform's container"
        )
    return found


def _network_problems(properties: Mapping[str, Any], containers: list[dict[str, Any]]) -> list[str]:
    address = properties.get("ipAddress")
    if not address:
        return ["ipAddress: none; nobody could ask the group"]
    shown = {port.get("port") for port in address.get("ports") or []}
    ours = {
        port.get("port")
        for container in containers
        if container.get("name") == SCORING
        for port in container["properties"].get("ports") or []
    }
    if address.get("type") == "Private":
        if not properties.get("subnetIds"):
            return ["subnetIds: none; a private address lies in a subnet"]
        if not shown & ours:
            return [f"ipAddress.ports: none of {SCORING}'s; a private group is asked there"]
        return []
    found: list[str] = []
    if shown & ours:
        found.append(
            f"ipAddress.ports: {sorted(shown & ours)} of container '{SCORING}' would carry keys "
            f"unencrypted over the internet; show {HTTPS} of a container that ends TLS, or make "
            "the address private, with subnetIds"
        )
    if shown - ours != {HTTPS} and not shown & ours:
        found.append(
            f"ipAddress.ports: {sorted(shown)}; a public address shows {HTTPS} alone, of a "
            "container that ends TLS"
        )
    if not address.get("dnsNameLabel"):
        found.append("ipAddress.dnsNameLabel: none; a certificate is for a name")
    return found


def _secret_problems(value: Any, place: str) -> list[str]:
    """Secrets that stand in the file itself."""
    found: list[str] = []
    if isinstance(value, dict):
        for name, child in value.items():
            where = f"{place}.{name}" if place else name
            texts = child.values() if name == "secret" and isinstance(child, dict) else [child]
            if name in _SECRETS or name == "secret":
                found += [
                    f"{where}: holds a secret; name an environment variable, ${{NAME}}"
                    for text in texts
                    if isinstance(text, str) and text and not _VARIABLE.fullmatch(text)
                ]
            else:
                found += _secret_problems(child, where)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += _secret_problems(child, f"{place}[{index}]")
    return found


def render(
    document: dict[str, Any],
    clients: AzureClients,
    environment: Environment,
    model: str,
    *,
    own: bool,
) -> Group:
    """The group that a document without problems asks for.

    Args:
        document: as it was read.
        clients: of the profile.
        environment: where it serves.
        model: what it serves.
        own: whether the document is the model's own: names stand as they are.
    """
    prefix = _prefix(own, model)
    name = f"{prefix}{document['name']}"
    if len(name) > _LONGEST:
        raise SpecError(FILE, [f"name: '{name}' is longer than {_LONGEST}; shorten it"])
    settings = clients.settings
    body = {key: value for key, value in copy.deepcopy(document).items() if key not in _NOT_SENT}
    body.setdefault("location", settings.location)
    address = body["properties"].get("ipAddress") or {}
    if label := address.get("dnsNameLabel"):
        address["dnsNameLabel"] = f"{prefix}{label}"
    label, location = _filled(
        [address.get("dnsNameLabel", ""), body["location"]], lambda one: os.environ[one]
    )
    fqdn = f"{label}.{location.replace(' ', '').lower()}.azurecontainer.io"
    container = settings.storage.container
    folder = f"{settings.storage.url}/{container}/endpoints/{environment.name}/{model}"
    _set_variables(body, {GENERATION_URL: folder, **_server_variables(environment)})
    tags = {MODEL_TAG: model, ENVIRONMENT_TAG: environment.name}
    body["tags"] = {**(body.get("tags") or {}), **tags}

    def value(variable: str) -> str:
        return fqdn if variable == FQDN else os.environ[variable]

    # What may be a secret does not go into the digest, which anybody may read, as it is.
    spec = digest_json(_filled(body, lambda n: fqdn if n == FQDN else _slow(os.environ[n])))
    filled = _filled(body, value)
    filled["tags"][SPEC_TAG] = spec
    return Group(name, filled, spec)


def started(group: Group, instance: str) -> dict[str, Any]:
    """The body that starts a group under a name by which its server acknowledges."""
    body = copy.deepcopy(group.body)
    _set_variables(body, {INSTANCE: instance})
    return body


def candidate(group: Group) -> Group:
    """A group with the same containers beside it, which nobody asks: it has no public name."""
    body = copy.deepcopy(group.body)
    if body["properties"]["ipAddress"].get("type") != "Private":
        del body["properties"]["ipAddress"]
    body["tags"][CANDIDATE_TAG] = "true"
    return Group(f"{group.name}{CANDIDATE}", body, group.spec)


def _server_variables(environment: Environment) -> dict[str, str]:
    """What environment.json says about the server, as its variables."""
    found: dict[str, str] = {}
    if environment.server.cors_origins:
        found["MLOPS_CORS_ORIGINS"] = ",".join(environment.server.cors_origins)
    if environment.server.access_log:
        found["MLOPS_ACCESS_LOG"] = "true"
    if environment.capture is not None:
        found |= _capture_variables(environment.capture)
    return found


def _capture_variables(policy: CapturePolicy) -> dict[str, str]:
    values = policy.model_dump(exclude_none=True)
    return {
        f"MLOPS_CAPTURE_{name.upper()}": _listed(value) if isinstance(value, list) else f"{value}"
        for name, value in values.items()
        if value != []
    }


def _listed(names: list[str]) -> str:
    """As JSON only where commas would say something else: older images do not read it."""
    text = ",".join(names)
    plain = text.split(",") == [name.strip() for name in names]
    return text if plain and not text.startswith("[") and '"' not in text else json.dumps(names)


def _set_variables(body: dict[str, Any], values: Mapping[str, str]) -> None:
    for container in body["properties"]["containers"]:
        if container["name"] == SCORING:
            given = container["properties"].get("environmentVariables") or []
            kept = [variable for variable in given if variable["name"] not in values]
            added = [{"name": name, "value": value} for name, value in values.items()]
            container["properties"]["environmentVariables"] = kept + added


def _filled(value: Any, look_up: Callable[[str], str]) -> Any:
    """A copy with every ``${NAME}`` replaced, in names too: identities are names."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: look_up(match[1]), value)
    if isinstance(value, dict):
        return {_filled(name, look_up): _filled(child, look_up) for name, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, look_up) for child in value]
    return value


@lru_cache(maxsize=64)
def _slow(secret: str) -> str:
    """A digest that cannot be searched for a short secret."""
    return hashlib.scrypt(secret.encode(), salt=b"mlops_spec", n=2**14, r=8, p=1, dklen=16).hex()
