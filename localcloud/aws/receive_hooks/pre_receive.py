"""CodeCommit's limits on a push, as a pre-receive hook: what breaks one is refused whole, with the reason.

Reads ``<old> <new> <ref>`` lines. Standard library only, and started without ``site``, since it runs on each push.
"""

import glob
import os
import struct
import sys

MAXIMUM_REFS = 4000
MAXIMUM_BRANCH_NAME = 256
MAXIMUM_BLOB = 2 * 1024**3
BLOB, OFS_DELTA = 3, 6


def complaints(updates):
    """Yield what CodeCommit's quotas page forbids of this list of updates."""
    if len(updates) > MAXIMUM_REFS:
        yield f"{len(updates)} references in one push; the maximum is {MAXIMUM_REFS}"
    for _, new, ref in updates:
        branch = ref[len("refs/heads/") :] if ref.startswith("refs/heads/") else None
        if branch is None or not int(new, 16):
            continue
        if len(branch) > MAXIMUM_BRANCH_NAME:
            yield f"a branch name of {len(branch)} characters; the maximum is {MAXIMUM_BRANCH_NAME}"
        if len(branch) == 40 and all(c in "0123456789abcdefABCDEF" for c in branch):
            yield "a branch name of 40 hexadecimal digits"
    for index in glob.glob(os.path.join(os.environ.get("GIT_QUARANTINE_PATH", ""), "pack", "*.idx")):
        for kind, size in pack_entries(index):
            if kind == OFS_DELTA:
                yield "the pack has ofs-delta objects, which were not offered"
                break
            if kind == BLOB and size > MAXIMUM_BLOB:
                yield f"a file of {size} bytes; the maximum is {MAXIMUM_BLOB}"


def pack_entries(index):
    """Yield type and size of each entry of the pack beside a version 2 index (gitformat-pack(5))."""
    with open(index, "rb") as stream:
        data = stream.read()
    count = struct.unpack(">I", data[8 + 255 * 4 : 8 + 256 * 4])[0]
    start = 8 + 256 * 4 + count * 24
    offsets = struct.unpack(f">{count}I", data[start : start + 4 * count])
    with open(index[: -len("idx")] + "pack", "rb") as pack:
        for offset in offsets:
            if offset & 0x80000000:
                continue
            pack.seek(offset)
            header = pack.read(10)
            size, shift = header[0] & 0x0F, 4
            for before, byte in zip(header, header[1:]):
                if not before & 0x80:
                    break
                size |= (byte & 0x7F) << shift
                shift += 7
            yield (header[0] >> 4) & 7, size


def main():
    updates = [line.split(" ", 2) for line in os.fsdecode(sys.stdin.buffer.read()).split("\n") if line]
    found = list(complaints(updates))
    for complaint in found:
        sys.stderr.write(f"CodeCommit refuses this push: {complaint}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
