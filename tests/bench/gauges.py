"""The gauges: memory, disk and folders, as the kernel tells them."""

import os
import re
from pathlib import Path

from tests.handles import Service, is_running

STANDING = ("front desk", "zygote", "reaper")


def anonymous_mb(pid: int) -> float:
    """Memory of a process that no file backs (a page shared with a fork is counted in both)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) / 1024


def standing_mb(service: Service) -> float:
    """That of front desk, zygote and reaper together."""
    return sum(anonymous_mb(pid) for role in STANDING for pid in service.pids(role))


def proportional_mb(pid: int) -> float:
    """What a process has to itself, and its share of what it shares (PSS); root may ask."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]) / 1024


def cells(service: Service) -> dict[str, int]:
    """The pid of each live cell by its database's id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().rstrip(b"\0 ").decode().split()
        except OSError:
            continue
        if words[:2] == ["walkin:", "cell"] and is_running(int(folder.name)):
            found[words[2]] = int(folder.name)
    mine = {folder.name for folder in (service.data_dir / "cells/instances").glob("*/*")}
    return {instance: pid for instance, pid in found.items() if instance in mine}


def disk_kb(folder: Path) -> float:
    """What a folder takes on disk with all that is in it, in blocks of 512 bytes as du(1) does."""
    blocks = folder.lstat().st_blocks
    unseen = [str(folder)]
    while unseen:
        with os.scandir(unseen.pop()) as entries:
            for entry in entries:
                blocks += entry.stat(follow_symlinks=False).st_blocks
                if entry.is_dir(follow_symlinks=False):
                    unseen.append(entry.path)
    return blocks / 2
