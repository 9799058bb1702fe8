"""The whole graph on Azure, as people start it, and what it leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.azure.demo import Demo
from tests.azure.server import AzureServer

#: What a token of Azure's begins with, and the signature of an address.
TOKEN = re.compile(rb"eyJ[\w-]{10,}\.[\w-]{10,}|\bsig=[\w%]{10,}")


def test_two_releases_blue_to_green_and_no_secret_anywhere(
    azure: AzureServer, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with output.open("w") as file:
        demo = Demo(azure, tmp_path, file)
        demo.run()
    said = output.read_text()
    answers = re.findall(r'"predictions":\[([\d.]+)\]', said)
    assert len(answers) == 2
    assert answers[0] != answers[1]
    history = said[said.rindex("mlops history diabetes") :]
    served = re.findall(r"^\S+ +(?:\S+ +)*?(staging|production) +(\d)\b", history, re.MULTILINE)
    assert sorted(served) == [(e, v) for e in ("production", "staging") for v in "12"], history
    assert _deployments(azure, "diabetes-production") == {"v2": 100}
    secrets = _secrets(azure)
    assert len(secrets) >= 10
    for place, content in _left(azure, output, demo.state):
        found = [name for name, secret in secrets.items() if secret.encode() in content]
        assert not found, f"{place} holds {found}"
        assert not TOKEN.search(content), place


def _deployments(azure: AzureServer, endpoint: str) -> dict[str, int]:
    """Version -> share of the traffic."""
    (found,) = [e for e in azure.cloud.every("/onlineEndpoints") if e.name == endpoint]
    names = [d.name for d in azure.cloud.every("/deployments") if d.id.startswith(f"{found.id}/")]
    return {name.partition("-")[0]: found.properties["traffic"].get(name, 0) for name in names}


def _secrets(azure: AzureServer) -> dict[str, str]:
    """Everything that opens something, by where it is from."""
    found = {"client secret": azure.login.secret, "account key": azure.blob.key}
    for endpoint in azure.cloud.every("/onlineEndpoints"):
        for number, key in enumerate(endpoint.hidden["keys"]):
            found[f"key {number} of {endpoint.name}"] = key
    container = azure.blob.client().get_container_client("mlops")
    for blob in container.list_blobs("endpoints/staging/"):
        if blob.name.endswith("/keys"):
            lines = container.download_blob(blob.name).readall().decode().split()
            found |= {f"line {n} of {blob.name}": line for n, line in enumerate(lines)}
    return found


def _left(azure: AzureServer, output: Path, state: Path) -> Iterator[tuple[str, bytes]]:
    """Output, state folder with Dagster's databases, blobs, and what containers and jobs print."""
    yield "output", output.read_bytes()
    for path in sorted(state.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(state)), path.read_bytes()
    for container in azure.blob.client().list_containers():
        client = azure.blob.client().get_container_client(container.name)
        for blob in client.list_blobs():
            if not blob.name.endswith("/keys"):
                yield f"blob {blob.name}", client.download_blob(blob.name).readall()
    for path in sorted([*azure.folder.glob("containers/*/log"), *azure.folder.glob("jobs/*/log")]):
        yield str(path.relative_to(azure.folder)), path.read_bytes()
