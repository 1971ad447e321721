import pytest

from templates import memory


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        (None, 0, (70, 100)),  # no control group
        (1 << 60, 5, (70, 100)),  # no limit worth the name
        (60, 20, (40, 60)),
        (90, 5, (70, 90)),  # other programs leave less than the group permits
        (60, 61, (0, 60)),
    ],
)
def test_a_control_group_lowers_the_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, used: int, expected: tuple[int, int]
) -> None:
    class Machine:
        available, total = 70, 100

    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: Machine)
    monkeypatch.setattr(memory, "_control_group_bytes", lambda: (limit, used))
    assert memory.memory_bytes() == expected
