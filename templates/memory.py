"""How much memory this process may use, and how to keep it to a share of that."""

import resource

import psutil


def memory_bytes() -> tuple[int, int]:
    """Find how much memory this process may use.

    Returns:
        Available and total bytes; less than the machine's where a control group allows less.
    """
    machine = psutil.virtual_memory()
    available, total = int(machine.available), int(machine.total)
    limit, used = _control_group_bytes()
    if limit is None or limit >= total:
        return available, total
    return max(0, min(available, limit - used)), limit


def limit_memory(ratio: float) -> None:
    """Let this process take a share of the total, and no more.

    Args:
        ratio: the share, from 0 to 1.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(memory_bytes()[1] * ratio)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _control_group_bytes() -> tuple[int | None, int]:
    """Read limit and use of this process's control group, version 2 and then 1."""
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            with (
                open(limit_file, encoding="ascii") as limit,
                open(used_file, encoding="ascii") as used,
            ):
                return int(limit.read()), int(used.read())
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return None, 0
