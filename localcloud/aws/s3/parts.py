"""Multipart uploads: sizes, order and checksums of parts.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html (EntityTooSmall, InvalidPartOrder) and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html (one checksum; SHA-256 is
composite only).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ministack.services import s3

MIN_PART_BYTES = 5 * 1024**2
"""Of every part but the last: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""
_ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")


def install() -> None:
    """Check uploads in parts, and answer with the checksum that an upload came with."""
    dispatch = s3._dispatch

    def checked(method: str, bucket: str, key: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        refused = _checksum_problem(method, key, headers) or _completion_problem(method, body, query)
        if refused:
            return refused
        status, answer, text = dispatch(method, bucket, key, headers, body, query)
        if status == 200 and method == "PUT" and key and not query.keys() & {"partNumber", "tagging", "retention"}:
            answer = {**answer, **{name: headers[name] for name in _checksums(headers)}}
        return status, answer, text

    s3._dispatch = checked


def _checksums(headers: Mapping[str, str]) -> list[str]:
    return [name for name in (f"x-amz-checksum-{algorithm}" for algorithm in _ALGORITHMS) if headers.get(name)]


def _checksum_problem(method: str, key: str, headers: Mapping[str, str]) -> Any:
    if not key or method not in ("PUT", "POST"):
        return None
    if len(_checksums(headers)) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        return s3._error("InvalidRequest", message, 400)
    algorithm = headers.get("x-amz-checksum-algorithm", "").upper()
    if headers.get("x-amz-checksum-type", "").upper() == "FULL_OBJECT" and algorithm.startswith("SHA"):
        message = f"The FULL_OBJECT checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        return s3._error("InvalidRequest", message, 400)
    return None


def _completion_problem(method: str, body: bytes, query: Mapping[str, Any]) -> Any:
    upload = s3._multipart_uploads.get(s3._qp(query, "uploadId")) if method == "POST" else None
    if not upload:
        return None
    numbers = [int(number) for number in re.findall(rb"<PartNumber>\s*(\d+)\s*</PartNumber>", body)]
    if numbers != sorted(set(numbers)):
        message = (
            "The list of parts was not in ascending order. The parts list must be specified in order by part number."
        )
        return s3._error("InvalidPartOrder", message, 400)
    sizes = [upload["parts"][number]["size"] for number in numbers if number in upload["parts"]]
    if any(size < MIN_PART_BYTES for size in sizes[:-1]):
        return s3._error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", 400)
    return None
