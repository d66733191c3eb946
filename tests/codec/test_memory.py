"""A multi-frame of a gibibyte is transcoded within half a gibibyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import json, resource, sys
from gateway.codec.dataset.extent import Extent
from gateway.codec.workers.pool import Pool
from gateway.codec.transcode import transcode
source, middle, back, length, stored, target = sys.argv[1:]
with Pool(2) as pool, open(source, "rb") as a, open(middle, "w+b") as b, open(back, "w+b") as c:
    made = transcode(Extent(a.fileno(), 0, int(length)), stored, target, b.fileno(), pool)
    again = transcode(Extent(b.fileno(), 0, made.length), target, stored, c.fileno(), pool)
# Of this process alone: ru_maxrss would count what the process of the test had when it started this one.
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([again.length, own + 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""

_FRAMES, _SIZE = 2048, 512


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_gibibyte_within_half_of_one(tmp_path: Path) -> None:
    from gateway.dicom.syntaxes import EXPLICIT_LITTLE, J2K_LOSSLESS
    from tests.support.images import Image

    image = Image(rows=_SIZE, columns=_SIZE, allocated=16, stored=16, frames=_FRAMES)
    head = image.data_set(b"").data[:-4] + (_FRAMES * _SIZE * _SIZE * 2).to_bytes(4, "little")
    source, middle, back = (tmp_path / name for name in ("source", "middle", "back"))
    row = bytes(range(256)) * (_SIZE * 2 // 256)
    with source.open("wb") as file:
        file.write(head)
        for number in range(_FRAMES):
            file.write(row[number % 256 :] + bytes(number % 256) + bytes(len(row) * (_SIZE - 1)))
    length = source.stat().st_size
    arguments = [str(source), str(middle), str(back), str(length), EXPLICIT_LITTLE, J2K_LOSSLESS]
    ran = subprocess.run([sys.executable, "-c", _CODE, *arguments], check=True, capture_output=True, timeout=1100)
    again, most_kib = json.loads(ran.stdout)
    assert again == length
    assert middle.stat().st_size < length / 10
    assert subprocess.run(["cmp", str(source), str(back)], check=False).returncode == 0
    assert most_kib < 500 * 1024, f"{most_kib // 1024} MiB"
