"""Any file ends in documents that Azure takes, with every key accounted for, or in one error."""

import re
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.convert import Conversion, convert, write
from mlops_assets.errors import UserError
from tests.convert.azure_accepts import (
    group_validator,
    load_documents,
    needs_specifications,
    quiet,
)
from tests.convert.v1_files import ACI, AKS, INFERENCE, SECRET, V1File, v1_files

pytestmark = quiet

aci_files = v1_files(ACI, ["aci", "ACI", "Aci"])
aks_files = v1_files(AKS, ["aks", "AKS", "aksendpoint", "AKSENDPOINT"])
inference_files = v1_files(INFERENCE, [])
examples = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(paths: list[Path], folder: Path) -> Conversion | str:
    """A conversion, or the error, of which every line names file, line and mend."""
    try:
        return convert(paths, folder)
    except UserError as error:
        message = str(error)
    names = "|".join(re.escape(str(path)) for path in paths)
    for line in message.splitlines():
        assert re.match(rf"({names}): line \d+(, column \d+)?: .+", line)
    return message


def converted(folder: Path, **files: V1File) -> Conversion | None:
    """A conversion that accounts for every key, None after an error that names file and line."""
    (folder / "src").mkdir()
    for script in ("score.py", "src/score.py"):
        (folder / script).write_text("def run(data): ...\n")
    (folder / "conda.yml").write_text("dependencies: [python]\n")
    paths: list[Path] = []
    for name, file in files.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(file.text, encoding="utf-8")
    conversion = outcome(paths, folder / "azure")
    if isinstance(conversion, str):
        assert SECRET not in conversion
        return None
    for report, file in zip(conversion.reports, files.values(), strict=True):
        assert Counter(row.key for row in report.rows if row.line) == Counter(file.keys())
    assert SECRET not in "".join(conversion.files().values())
    return conversion


@examples
@given(aks=aks_files, inference=inference_files, code=st.booleans())
def test_endpoint_and_deployment(aks: V1File, inference: V1File, code: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"aks": aks, "inference": inference} if code else {"aks": aks}
        conversion = converted(Path(folder), **files)
        if conversion:
            write(conversion, Path(folder) / "azure")
            load_documents(Path(folder) / "azure/production")


@needs_specifications
@examples
@given(aci=aci_files, inference=inference_files, code=st.booleans())
def test_container_group(aci: V1File, inference: V1File, code: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"aci": aci, "inference": inference} if code else {"aci": aci}
        conversion = converted(Path(folder), **files)
        if conversion:
            group_validator().validate(conversion.documents["staging/container_group.json"])


@examples
@given(text=st.text(max_size=60) | st.text("{}[]:,-&*'\"!#|>%@\n\t aks/0", max_size=60))
def test_any_text_at_all(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aks.yml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        conversion = outcome([path], Path(folder))
        if not isinstance(conversion, str):
            write(conversion, Path(folder))
            load_documents(Path(folder) / "production")
