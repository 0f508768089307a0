"""Builds the sdist into ``dist/``, with the same bytes wherever and whenever: ``python tools/build_sdist.py``.

setuptools takes times, owners and order from the file system; here they are those of ``SOURCE_DATE_EPOCH``, of nobody,
and the names'.
"""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Builds it, and packs it again."""
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--sdist", str(ROOT)], check=True)
    for path in (ROOT / "dist").glob("*.tar.gz"):
        repack(path, int(os.environ["SOURCE_DATE_EPOCH"]))


def repack(path: Path, epoch: int) -> None:
    """Write the same files again, with this time."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


if __name__ == "__main__":
    main()
