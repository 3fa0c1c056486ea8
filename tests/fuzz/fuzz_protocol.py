"""Feed the engine's parsers with input from libFuzzer; started by hand.

    pip install atheris && python tests/fuzz/fuzz_protocol.py -max_total_time=60

Anything but the documented errors is a finding.
"""

import contextlib
import sys
import zlib

import atheris

with atheris.instrument_imports():
    from codecommit_mirror.engine.failures import PackRefused, RetryableError
    from codecommit_mirror.engine.text import sanitize
    from codecommit_mirror.engine.wire.packs import read_pack, verify_checksum
    from codecommit_mirror.engine.wire.protocol import parse_advertisement, parse_report

EXPECTED = (ValueError, IndexError, zlib.error, PackRefused, RetryableError)


def one_input(data: bytes) -> None:
    """Parse one input as everything that comes from a server."""
    for parse in (
        parse_advertisement,
        lambda body: parse_report(body, True),
        lambda body: parse_report(body, False),
        lambda body: read_pack(b"PACK\0\0\0\2\0\0\0\5" + body),
        lambda body: list(verify_checksum([body])),
    ):
        with contextlib.suppress(*EXPECTED):
            parse(data)
    sanitize(data.decode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
