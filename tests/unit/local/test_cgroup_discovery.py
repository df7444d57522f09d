"""The hierarchies are found on cgroup v1, v2 and both at once."""

from __future__ import annotations

from pathlib import Path

from localcluster.cgroups import find_hierarchies

_V1 = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 27 0:40 / /mnt/elsewhere rw,relatime - cgroup2 cgroup2 rw
"""


def test_v1_has_one_root_per_mounted_hierarchy() -> None:
    found = find_hierarchies(_V1, unified=False)

    assert found.roots == tuple(Path("/sys/fs/cgroup") / name for name in ("memory", "pids", "unified"))
    assert not found.unified


def test_v2_has_one_root() -> None:
    found = find_hierarchies(_V1, unified=True)

    assert found.roots == (Path("/sys/fs/cgroup"),)
    assert found.unified
