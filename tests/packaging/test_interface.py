"""Whatever a contract's columns and labels are called, the package's types are these."""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.packaging.sources import write_interface

TYPES = {"float": float, "integer": int, "string": str, "boolean": bool, "timestamp": str}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
FEATURES = st.lists(
    st.fixed_dictionaries(
        {"name": TEXTS, "type": st.sampled_from(sorted(TYPES)), "nullable": st.booleans()}
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda feature: feature["name"],
)
LABELS = st.one_of(
    st.none(),
    *(
        st.lists(kind, min_size=2, max_size=4, unique=True)
        for kind in (TEXTS, st.integers(), st.booleans())
    ),
)


def imported(schema: dict[str, Any]) -> types.ModuleType:
    """The generated module, over a runtime that does nothing."""
    with TemporaryDirectory() as folder:
        package = Path(folder) / "odd_model"
        (package / "bundle").mkdir(parents=True)
        (package / "bundle" / "schema.json").write_text("{}")
        (package / "bundle" / "MODEL_CARD.md").write_text("")
        write_interface(package, schema, "odd-model", "1.0.0")
        embedded: Any = types.ModuleType("embedded")
        embedded.Embedded = lambda *_: None
        errors: Any = types.ModuleType("errors")
        errors.RequestError = errors.IntegrityError = Exception
        runtime = "odd_model._runtime.scoring"
        replaced = {f"{runtime}.embedded": embedded, f"{runtime}.errors": errors}
        module = types.ModuleType("odd_model")
        module.__file__ = str(package / "__init__.py")
        sys.modules.update(replaced, odd_model=module)
        try:
            source = (package / "__init__.py").read_text("utf-8")
            exec(compile(source, module.__file__, "exec"), module.__dict__)
        finally:
            for name in (*replaced, "odd_model"):
                del sys.modules[name]
        return module


@settings(deadline=None, max_examples=60)
@given(FEATURES, LABELS, st.booleans())
def test_any_names(features: list[Any], labels: list[Any] | None, probabilities: bool) -> None:
    module = imported(
        {
            "model": "odd",
            "version": 1,
            "digest": "d",
            "labels": labels,
            "probabilities": probabilities,
            "features": features,
        }
    )
    record = typing.get_type_hints(module.Record)
    assert list(record) == [feature["name"] for feature in features]
    for feature, hint in zip(features, record.values(), strict=True):
        kind = TYPES[feature["type"]]
        assert hint == (kind | None if feature["nullable"] else kind)
    answer = typing.get_type_hints(module.Answer, vars(module))
    assert ("probabilities" in answer) == probabilities
    (predicted,) = typing.get_args(answer["predictions"])
    assert predicted is float if labels is None else list(typing.get_args(predicted)) == labels
