"""Files of v1 that nobody has seen: generated content, written as people write."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from hypothesis import strategies as st

SECRET = "do-not-show-me"

_booleans = st.sampled_from([True, False, "True", "false", "yes", 1, None])
_counts = st.sampled_from([1, 2, 5, 10, "3", 4.0, 30_000, None])
_amounts = st.sampled_from([0.1, 0.5, 1, 2.0, 16, "2", "0.25", None])
_names = st.sampled_from(["rent", "rent-staging", "Rent_Model", "v1", None, "a.b"])
_wrong = st.sampled_from(
    [
        "",
        "maybe",
        -1,
        0,
        1e30,
        float("inf"),
        float("nan"),
        [],
        [1, "a"],
        {},
        {"a": 1},
        "2Gi",
        "é|`\n",
    ]
)
_secrets = st.just(SECRET)

_RESOURCES = dict.fromkeys(["cpu", "memoryInGB", "cpuLimit", "memoryInGBLimit"], _amounts)
_KEYS = {"primaryKey": _secrets, "secondaryKey": _secrets}
_SSL = {"sslEnabled": _booleans, "sslCertificate": _names, "sslKey": _secrets, "cname": _names}

ACI: dict[str, Any] = {
    "containerResourceRequirements": _RESOURCES,
    "location": st.sampled_from(["westeurope", "West Europe", None]),
    "authEnabled": _booleans,
    "appInsightsEnabled": _booleans,
    "dnsNameLabel": _names,
    "vnetName": _names,
    "subnetName": _names,
    "vaultBaseUrl": st.just("https://rent.vault.azure.net"),
    "keyName": st.just("disk"),
    "keyVersion": _counts,
    "keys": _KEYS,
    **_SSL,
}
AKS: dict[str, Any] = {
    "autoScaler": {
        "autoscaleEnabled": _booleans,
        "minReplicas": _counts,
        "maxReplicas": _counts,
        "targetUtilization": _counts,
        "refreshPeriodInSeconds": _counts,
    },
    "dataCollection": {"storageEnabled": _booleans},
    "authEnabled": _booleans,
    "tokenAuthEnabled": _booleans,
    "containerResourceRequirements": _RESOURCES,
    "appInsightsEnabled": _booleans,
    "scoringTimeoutMs": _counts,
    "maxConcurrentRequestsPerContainer": _counts,
    "maxQueueWaitMs": _counts,
    "numReplicas": _counts,
    "gpuCores": st.sampled_from([0, 1, "2", None]),
    "livenessProbeRequirements": dict.fromkeys(
        ["periodSeconds", "initialDelaySeconds", "timeoutSeconds", "failureThreshold"], _counts
    ),
    "namespace": _names,
    "computeTargetName": st.sampled_from(["cluster", "azureml:my_cluster", None]),
    "versionName": _names,
    "trafficPercentile": st.sampled_from([0, 20, "100", None]),
    "keys": _KEYS,
    **_SSL,
}
_conda = st.sampled_from(
    [
        {"name": "rent", "channels": ["conda-forge"], "dependencies": ["pip", {"pip": ["x==1"]}]},
        None,
    ]
)
INFERENCE: dict[str, Any] = {
    "entryScript": st.sampled_from(["score.py", "src/score.py", "src\\score.py"]),
    "sourceDirectory": st.sampled_from([".", "./src", "nowhere", None]),
    "runtime": st.sampled_from(["python", "spark-py", None]),
    "condaFile": st.sampled_from(["conda.yml", "nowhere.yml", None]),
    "extraDockerfileSteps": st.sampled_from(["steps", None]),
    "schemaFile": st.sampled_from(["schema.json", None]),
    "enableGpu": _booleans,
    "baseImage": st.sampled_from(["plant/base:3", None]),
    "baseImageRegistry": {"address": st.just("plant.azurecr.io"), "password": _secrets},
    "cudaVersion": st.sampled_from(["10.0", 9.1, None]),
    "environment": {
        "name": st.sampled_from(["rent", "AzureML-Minimal", "my env"]),
        "version": st.sampled_from(["3", 7, None]),
        "docker": {"baseImage": st.sampled_from(["plant/base:3", None]), "enabled": _booleans},
        "python": {"userManagedDependencies": _booleans, "condaDependencies": _conda},
        "environmentVariables": {"THREADS": _counts, "DB_PASSWORD": _secrets},
    },
}

_SPELLINGS: list[Callable[[str], str]] = [
    str.lower,
    lambda key: key[:1].upper() + key[1:],
    lambda key: "".join(f"_{c.lower()}" if c.isupper() else c for c in key),
    lambda key: key + "s",
    lambda key: key.replace("e", "", 1) or "e",
    lambda key: f"my {key}",
]
_noise = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8),
    _names | _counts | _wrong,
    max_size=2,
)


@dataclass(frozen=True)
class V1File:
    """A generated file."""

    content: dict[str, Any]
    text: str

    def keys(self) -> set[str]:
        """Every key with a value, by its place; groups by what is in them."""
        return set(_keys_of(self.content, ""))


def v1_files(keys: dict[str, Any], kinds: list[str]) -> st.SearchStrategy[V1File]:
    """Files of one kind, by the keys that v1 had for it."""
    return st.builds(_written, _contents(keys, kinds), st.sampled_from(list(_STYLES)), st.randoms())


@st.composite
def _contents(draw: st.DrawFn, keys: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {"computeType": draw(st.sampled_from(kinds))} if kinds else {}
    content |= draw(_group(keys))
    if not kinds:
        content.setdefault("entryScript", "score.py")
    return content | draw(_noise)


@st.composite
def _group(draw: st.DrawFn, keys: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(list(keys)), unique=True, max_size=8)):
        value = keys[key]
        plain = draw(st.integers(0, 9)) > 0
        name = key if plain else draw(st.sampled_from(_SPELLINGS))(key)
        right = draw(st.integers(0, 29)) > 0
        if isinstance(value, dict):
            value = _group(value) | (st.none() if right else _wrong)
        elif not right and value is not _secrets:
            value = _wrong
        content[name] = draw(value)
    return content


def _keys_of(value: Any, key: str) -> list[str]:
    if isinstance(value, dict) and (value or not key):
        parts = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        parts = [(f"{key}.{place}", item) for place, item in enumerate(value)]
    else:
        return [key]
    return [found for name, item in parts for found in _keys_of(item, name)]


def _written(content: dict[str, Any], style: str, random: Any) -> V1File:
    return V1File(content, _STYLES[style](content, random))


def _sloppy_json(content: dict[str, Any], random: Any) -> str:
    lines = json.dumps(content, indent=1, ensure_ascii=random.random() < 0.5).splitlines()
    for place, line in enumerate(lines):
        bare = line.rstrip()
        if place + 1 < len(lines) and lines[place + 1].strip()[0] in "}]" and bare[-1] not in "[{,":
            bare += random.choice(["", ","])
        bare = bare.replace(" ", "\t", len(bare) - len(bare.lstrip()))
        lines[place] = bare + random.choice(["", "", ' // it\'s "so", see http://here', " /* { */"])
    return random.choice(["", "// first: a comment\n", '"""A docstring."""\n']) + "\n".join(lines)


def _yaml(content: dict[str, Any], random: Any) -> str:
    text = yaml.safe_dump(
        content,
        sort_keys=False,
        allow_unicode=random.random() < 0.5,
        default_flow_style=random.choice([False, None]),
    )
    start = ["", "---\n", "# comment\n", "// comment\n", "'''\nA: docstring.\n'''\n"]
    return random.choice(start) + text


_STYLES: dict[str, Callable[[dict[str, Any], Any], str]] = {
    "json": lambda content, _: json.dumps(content),
    "sloppy": _sloppy_json,
    "yaml": _yaml,
}
