"""Feed the mirror program's parsers with what libFuzzer thinks of; started by hand:

    pip install atheris && python tests/fuzz/fuzz_protocol.py -max_total_time=60

Anything but the documented errors is a finding.
"""

import contextlib
import sys
import zlib

import atheris

with atheris.instrument_imports():
    from pipeline_templates import mirror_sync

EXPECTED = (ValueError, IndexError, zlib.error, mirror_sync.PackRefused, mirror_sync.Transient)


def one_input(data: bytes) -> None:
    """Parse one input as everything that comes from a server."""
    for parse in (
        mirror_sync.parse_advertisement,
        lambda body: mirror_sync.parse_report(body, True),
        lambda body: mirror_sync.parse_report(body, False),
        lambda body: mirror_sync.read_pack(b"PACK\0\0\0\2\0\0\0\5" + body),
        lambda body: list(mirror_sync.checked([body])),
    ):
        with contextlib.suppress(*EXPECTED):
            parse(data)
    mirror_sync.shown(data.decode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
