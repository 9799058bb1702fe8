"""What the server of one version takes from its command line and from variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.scoring.options import parse


def test_defaults_listen_on_this_machine_alone() -> None:
    found = parse([], {})
    assert (found.host, found.port, found.workers) == ("127.0.0.1", 5001, 1)
    assert (found.bundle, found.keys, found.no_keys) == (None, None, False)
    assert found.key_variables == ["MLOPS_PRIMARY_KEY", "MLOPS_SECONDARY_KEY"]


def test_each_option_may_be_a_variable_and_the_command_line_wins() -> None:
    variables = {
        "MLOPS_BUNDLE": "/model",
        "MLOPS_BUNDLE_VERSION": "7",
        "MLOPS_PORT": "0",
        "MLOPS_WORKERS": "2",
        "MLOPS_NO_KEYS": "true",
        "MLOPS_CORS_ORIGINS": "https://a.example,https://b.example",
        "MLOPS_COMPARED_EDGES": "[0.5, 2]",
        "MLOPS_HOST": "",  # empty is unset
    }
    found = parse(["--workers", "3", "--digest", "a" * 64], variables)
    assert found.bundle == Path("/model")
    assert (found.version, found.port, found.workers, found.no_keys) == (7, 0, 3, True)
    assert found.cors_origins == ["https://a.example", "https://b.example"]
    assert found.compared_edges == [0.5, 2.0]
    assert (found.host, found.digest) == ("127.0.0.1", "a" * 64)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--digest", "xyz"],
        ["--port", "70000"],
        ["--workers", "0"],
        ["--version", "none"],
        ["--no-keys", "perhaps"],
        ["--compared-edges", "1,2"],
        ["--compared-edges", "[2, 1]"],
        ["--capture-exclude", '["income, yearly"'],
        ["--capture-exclude", '"income, yearly",age'],
        ["--capture-exclude", "[1]"],
        ["--capture-columns", "[]"],
        ["--unknown"],
    ],
)
def test_what_is_no_option_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments, {})
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("age, size [cm],", ["age", "size [cm]"]),
        ('["income, yearly", " age"]', ["income, yearly", " age"]),
        (' ["[a]"]', ["[a]"]),
    ],
)
def test_columns_are_names_between_commas_or_a_json_list(text: str, names: list[str]) -> None:
    variables = {"MLOPS_CAPTURE_COLUMNS": text, "MLOPS_CAPTURE_EXCLUDE": text}
    found = parse([], variables)
    assert (found.capture_columns, found.capture_exclude) == (names, names)


def test_columns_that_cannot_be_read_name_their_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse([], {"MLOPS_CAPTURE_EXCLUDE": '["age"'})
    assert "MLOPS_CAPTURE_EXCLUDE is neither names between commas nor" in capsys.readouterr().err
