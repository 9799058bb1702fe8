"""What cannot be read ends in one error with file, line and mend."""

import codecs
from pathlib import Path

import pytest

from mlops_assets.convert import convert
from mlops_assets.errors import UserError

SAMPLES = Path(__file__).parent / "samples"

ERRORS = {
    "no list": ("- computeType: aks\n", "line 1: holds a list; write keys and their values"),
    "nothing": ("# later\n", "line 1: holds nothing; write keys and their values"),
    "no kind": (
        "cpuCores: 1\n",
        "line 1: computeType: missing; write aci, aks or aksendpoint",
    ),
    "unknown kind": (
        "\ncomputeType: Standard_DS3_v2\n",
        "line 2: computeType: is none that v1 knew; write aci, aks or aksendpoint",
    ),
    "local": (
        "computeType: Local\nport: 6789\n",
        "line 1: computeType: Local is a container on your own machine, here the profile "
        "`local`; leave this file out",
    ),
    "a comma missing": (
        '{"computeType": "aks"\n "numReplicas": 1}',
        "line 2, column 2: neither YAML nor JSON: expected ',' or '}', but got '<scalar>'; "
        "mend that place and try again",
    ),
    "cut off": (
        '{"computeType": "aks",',
        "line 1, column 23: neither YAML nor JSON: expected the node content, but found "
        "'<stream end>'; mend that place and try again",
    ),
    "a tab": (
        "computeType: aks\nautoScaler:\n\tminReplicas: 1\n",
        "line 3, column 1: neither YAML nor JSON: found character '\\t' that cannot start any "
        "token; mend that place and try again",
    ),
    "another tag": (
        "computeType: aks\nnumReplicas: !!python/object:os.system 1\n",
        "line 2, column 14: neither YAML nor JSON: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.system'; mend that place and try again",
    ),
    "no space": (
        "{computeType: aks, sslKey:do-not-show-me}",
        "line 1: sslKey: write a space after its colon",
    ),
    "an odd character": (
        "computeType: aks\nname: \x07\n",
        "line 2: holds a character that no text file has; remove it",
    ),
    "itself": ("computeType: aks\na: &a\n  b: *a\n", "line 2: an alias stands for itself; write"),
    "deep": ("[" * 3000, "line 1: nested too deep"),
    "not a number": (
        "computeType: aks\ncontainerResourceRequirements: {cpu: 500m}\n",
        "line 2: containerResourceRequirements.cpu: is not a number; write the number alone, "
        'without unit or quotes; found "500m"',
    ),
    "not above zero": (
        "computeType: aci\ncontainerResourceRequirements: {memoryInGB: 0}\n",
        "line 2: containerResourceRequirements.memoryInGB: must be above 0; v1 refused it too; "
        "found 0",
    ),
    "no whole number": (
        "computeType: aks\nscoringTimeoutMs: 1.5\n",
        "line 2: scoringTimeoutMs: must be a whole number; found 1.5",
    ),
    "too many": (
        "computeType: aks\nautoScaler:\n  targetUtilization: 170\n",
        "line 3: autoScaler.targetUtilization: must be from 1 to 100; found 170",
    ),
    "no truth": (
        "computeType: aks\nauthEnabled: maybe\n",
        "line 2: authEnabled: is neither true nor false; write one of them, without quotes; "
        'found "maybe"',
    ),
    "no group": (
        "computeType: aks\nautoScaler: on\n",
        "line 2: autoScaler: must be a group of keys; write them below it, indented",
    ),
    "both": (
        "computeType: aks\nnumReplicas: 2\nautoScaler: {autoscaleEnabled: true}\n",
        "line 2: numReplicas: beside an autoscaler, which v1 refused; remove it, or set "
        "autoscaleEnabled to false",
    ),
    "either": (
        "computeType: aks\nnumReplicas: 2\nautoScaler: {minReplicas: 1}\n",
        "line 2: numReplicas: beside bounds of an autoscaler, which v1 refused; write "
        "autoscaleEnabled: true without it, or false",
    ),
    "neither": (
        "computeType: aks\nautoScaler: {autoscaleEnabled: false}\n",
        "line 2: autoScaler.autoscaleEnabled: false without numReplicas, which v1 refused; write "
        "numReplicas",
    ),
    "crossed": (
        "computeType: aks\nautoScaler: {minReplicas: 20}\n",
        "line 2: autoScaler.minReplicas: from 20 to 10 replicas (v1's defaults are 1 and 10); "
        "write maxReplicas of at least minReplicas",
    ),
    "below": (
        "computeType: aks\ncontainerResourceRequirements: {cpu: 2, cpuLimit: 1}\n",
        "line 2: containerResourceRequirements.cpuLimit: below cpu, 2; write more",
    ),
    "two ways in": (
        "computeType: aks\nauthEnabled: true\ntokenAuthEnabled: true\n",
        "line 3: tokenAuthEnabled: true beside authEnabled: true, which v1 refused; set one of "
        "them to false",
    ),
    "no name": (
        "computeType: aksendpoint\nversionName: '2021'\n",
        "line 2: versionName: is no name that Azure takes; write 3 to 32 small letters, digits "
        'and hyphens, a letter first; found "2021"',
    ),
    "no cluster": (
        "computeType: aks\ncomputeTargetName: the cluster\n",
        "line 2: computeTargetName: is no name of a cluster; write the name it is attached under; "
        'found "the cluster"',
    ),
    "no region": (
        "computeType: aci\nlocation: somewhere/else\n",
        'line 2: location: is no region; write one such as westeurope; found "somewhere/else"',
    ),
    "half a network": (
        "computeType: aci\nsubnetName: models\n",
        "line 2: subnetName: needs vnetName beside it; v1 refused one alone",
    ),
    "half a vault": (
        "computeType: aci\nkeyName: disk\n",
        "line 2: keyName: needs all of vaultBaseUrl, keyName, keyVersion; v1 refused some alone",
    ),
    "a secret": (
        'computeType: aci\nvnetName: "AccountKey=do-not-show-me"\nsubnetName: a\n',
        "line 2: vnetName: looks like a secret; take it out of this file, and out of git; found "
        "(not shown: a secret)",
    ),
    "no script": (
        '{"sourceDirectory": "src"}',
        "line 1: entryScript: missing, which v1 refused; name score.py",
    ),
    "no environment": (
        "entryScript: a.py\nenvironment: a b c\n",
        "line 2: environment: must be an environment's keys, or its name as NAME:VERSION",
    ),
}


@pytest.mark.parametrize(("text", "message"), ERRORS.values(), ids=ERRORS)
def test_the_error_names_file_line_and_mend(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    files = [path, SAMPLES / "aks_alone.yml"] if "environment" in message else [path]
    if "entryScript" in message:
        files.append(SAMPLES / "aks_alone.yml")
    with pytest.raises(UserError) as caught:
        convert(files, tmp_path / "azure")
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "do-not-show-me" not in str(caught.value)


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "aks.yml"
    path.write_text("computeType: aks\nauthEnabled: maybe\nscoringTimeoutMs: -1\nnumReplicas: x\n")
    with pytest.raises(UserError) as caught:
        convert([path], tmp_path)
    assert [line.split(": ")[1:3] for line in str(caught.value).splitlines()] == [
        ["line 2", "authEnabled"],
        ["line 3", "scoringTimeoutMs"],
        ["line 4", "numReplicas"],
    ]


def test_files_that_cannot_be_files_of_v1(tmp_path: Path) -> None:
    folder, large, latin = tmp_path / "aks", tmp_path / "large.yml", tmp_path / "latin.yml"
    folder.mkdir()
    large.write_bytes(b"#" * 1_000_001)
    latin.write_bytes("computeType: aks\nteam: Zürich\n".encode("latin-1"))
    for path, message in {
        tmp_path / "none.yml": "cannot be read: No such file or directory; name the files",
        folder: "cannot be read: Is a directory; name the files",
        large: "larger than 1 MB; that is no deployment file",
        latin: "line 2: not UTF-8; save the file as UTF-8",
    }.items():
        with pytest.raises(UserError) as caught:
            convert([path], tmp_path)
        assert str(caught.value).startswith(f"{path}: {message}")


def test_a_few_lines_that_stand_for_billions_of_values(tmp_path: Path) -> None:
    path = tmp_path / "aks.yml"
    lines = ["computeType: aks", "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="more than 20000 values; remove aliases"):
        convert([path], tmp_path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a second file for aks, after .*aks_alone\.yml"):
        convert([SAMPLES / "aks_alone.yml", SAMPLES / "aks_fixed.json"], tmp_path)
    with pytest.raises(UserError, match="says how, not where; give the deployment configuration"):
        convert([SAMPLES / "inference_named.yml"], tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_wrote(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = '{\r\n\t"computeType": "aks",\r\n\t"numReplicas": 2\r\n}\r\n'
    path.write_bytes(text.encode(encoding))
    assert path.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16))
    documents = convert([path], tmp_path).documents
    assert documents["production/deployment.json"]["instance_count"] == 2


@pytest.mark.parametrize(
    ("name", "text", "target"),
    [
        ("aciDeploymentConfig.yml", "containerResourceRequirements: {cpu: 1}", "aci"),
        ("deployment_config_aks.yml", "authEnabled: true", "aks"),
        ("AKSConfig.json", "{}", "aks"),
        ("prod.yml", "scoringTimeoutMs: 1000", "aks"),
        ("dev.yml", "dnsNameLabel: rent", "aci"),
        ("dev.yml", "computeType: Azure Container Instance", "aci"),
    ],
)
def test_the_kind_by_the_files_name_or_keys(
    name: str, text: str, target: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    documents = convert([tmp_path / name], tmp_path).documents
    environment = documents[next(iter(documents))]
    assert environment["target"] == target
