"""Which files are compressed already: to deflate an image again costs minutes and saves nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["is_packed"]

_SUFFIXES: Final = (
    ".7z", ".apk", ".bz2", ".deb", ".docx", ".gz", ".ipk", ".jar", ".jpeg", ".jpg", ".lz4", ".lzma",
    ".lzo", ".mp4", ".odt", ".pdf", ".png", ".rpm", ".squashfs", ".squashfs-lz4", ".squashfs-lzo",
    ".squashfs-xz", ".squashfs-zst", ".tbz2", ".tgz", ".txz", ".webp", ".whl", ".xlsx",
    ".xz", ".zip", ".zst",
)  # fmt: skip
_MAGIC: Final = (
    b"\x1f\x8b",  # gzip
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",  # zstd
    b"BZh",
    b"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c",
    b"\x04\x22\x4d\x18",  # lz4
    b"\x89LZO\x00",
    b"hsqs",  # squashfs
    b"\xed\xab\xee\xdb",  # rpm
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG",
)


def is_packed(name: str, first: bytes) -> bool:
    """Judge by the name and the first bytes."""
    return name.lower().endswith(_SUFFIXES) or first.startswith(_MAGIC)
