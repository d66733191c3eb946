"""Free memory that is really there while benchmarks run."""

from __future__ import annotations

from pathlib import Path

from benchmarks import memory

MIB = 1024 * 1024


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * memory.mmap.PAGESIZE


def test_one_page_of_each_mib_is_kept_until_the_end() -> None:
    before = _resident()
    with memory.present(64 * MIB) as size:
        held = _resident() - before
        assert size == 64 * MIB
        assert held < 16 * MIB
    assert _resident() - before < 16 * MIB


def test_where_little_is_free_nothing_is_taken(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda: memory.LEFT_BYTES)
    with memory.present() as size:
        assert size == 0
