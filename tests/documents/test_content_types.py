"""A file's type, found in its first bytes."""

from __future__ import annotations

import pytest

from documents.content_types import HEAD_BYTES, RASTER_IMAGES, content_type_of

BINARY = b"\x00\x01\xfe\xff" * 40


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"<!DOCTYPE html><script>alert(1)</script>", "text/html"),
        (b"\xef\xbb\xbf \n<HTML>", "text/html"),
        (b"<script>alert(1)</script>", "text/html"),
        (b"<!-- a --><p>", "text/html"),
        (b"<svg onload='alert(1)'>", "image/svg+xml"),
        (b'<?xml version="1.0"?><!-- a --><svg:svg xmlns:svg="http://www.w3.org/2000/svg">', "image/svg+xml"),
        (b'<?xml version="1.0"?><feed/>', "application/xml"),
        # Letters that are signatures of pictures too.
        (b"BMW and others", "text/plain"),
        (b"P6 is a section", "text/plain"),
        (b"FORM of the letter", "text/plain"),
        (b"#define A 1", "text/plain"),
        (b"GIF89a is how they begin", "text/plain"),
        ("Der Pegel stand früh bei 3,4 m. \N{WATER WAVE}".encode(), "text/plain"),
        (b"%PDF-1.7\nplain", "application/pdf"),
        (rb"{\rtf1 a}", "application/rtf"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + BINARY, "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + BINARY, "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + BINARY, "image/jpeg"),
        (b"\xff\xd8\xff\xdb\0\x43\0" + BINARY, "image/jpeg"),
        (b"GIF89a\1\0\1\0\x80\0\0" + BINARY, "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + BINARY, "image/webp"),
        (b"RIFF\x24\0\0\0WAVEfmt " + BINARY, "audio/wav"),
        (b"RIFF\x24\0\0\0nope" + BINARY, "application/octet-stream"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avif" + BINARY, "image/avif"),
        (b"II*\0\x08\0\0\0" + BINARY, "image/tiff"),
        (b"PK\x03\x04\x14\0\0\0\x08\0" + BINARY, "application/zip"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3" + BINARY, "application/gzip"),
        (b"\1\0" + BINARY, "application/octet-stream"),
        (b"BM" + BINARY, "application/octet-stream"),
        (b"caf\xe9 au lait", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_type(head: bytes, found: str) -> None:
    """Signatures and text as they are; what nearly looks like an image is none."""
    assert content_type_of(head) == found


def test_text_that_is_cut_in_a_character() -> None:
    """Where the head ends, half a character is no fault; before, or in a file that ends there, it is one."""
    text = ("a" + "ü" * HEAD_BYTES).encode()
    assert content_type_of(text[:HEAD_BYTES]) == "text/plain"
    assert content_type_of(text[:100]) == "application/octet-stream"


def test_images_are_made_of_pixels() -> None:
    """An SVG can hold scripts, and is not among them."""
    assert "image/svg+xml" not in RASTER_IMAGES
    assert all(name.startswith("image/") for name in RASTER_IMAGES)
