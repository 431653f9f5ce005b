"""Values are built from JSON objects without coercion."""

from __future__ import annotations

from typing import Any

import pytest

from seedance_avatar.models import VideoTask
from seedance_avatar.wire.response import structure


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("progress", 65, 65.0),
        ("progress", 6.5, 6.5),
        ("progress", "65%", None),
        ("progress", True, None),
        ("progress", 10**400, None),
        ("model", "seedance-2", "seedance-2"),
        ("model", None, None),
        ("model", False, None),
        ("unknown", 1, None),
    ],
)
def test_optional_fields_are_taken_as_they_are_or_not_at_all(field: str, value: object, read: object) -> None:
    task = structure(VideoTask, {"task_id": "t_1", field: value})
    assert getattr(task, field, None) == read
    assert type(getattr(task, field, None)) is type(read)


@pytest.mark.parametrize("fields", [{"task_id": None}, {"task_id": 7}, {"task_id": "t", "status": False}])
def test_other_fields_are_never_made_up(fields: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        structure(VideoTask, fields)
