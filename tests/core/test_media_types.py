"""The type, the name and the size of a picture, as the first bytes of a file tell them."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hansa.model.image_size import read_image_size
from hansa.model.media_types import INLINE, content_disposition, detect_media_type, sanitise_name
from PIL import Image


def picture(form: str, width: int, height: int, **options: object) -> bytes:
    made = BytesIO()
    Image.new("RGB", (width, height), "red").save(made, form, **options)
    return made.getvalue()


@pytest.mark.parametrize(
    ("form", "options", "kind"),
    [
        ("PNG", {}, "image/png"),
        ("GIF", {}, "image/gif"),
        ("JPEG", {}, "image/jpeg"),
        ("JPEG", {"progressive": True, "comment": b"x" * 300}, "image/jpeg"),
        ("WEBP", {}, "image/webp"),
        ("WEBP", {"lossless": True}, "image/webp"),
        ("BMP", {}, "application/octet-stream"),
    ],
)
def test_a_real_picture_tells_its_type_and_size(form, options, kind):
    data = picture(form, 321, 123, **options)
    assert read_image_size(data) == (321, 123)
    assert detect_media_type(data, "application/octet-stream") == kind


def test_an_animated_webp_tells_its_size():
    made = BytesIO()
    frames = [Image.new("RGB", (70, 50), colour) for colour in ("red", "blue")]
    frames[0].save(made, "WEBP", save_all=True, append_images=frames[1:])
    assert read_image_size(made.getvalue()) == (70, 50)


@pytest.mark.parametrize("form", ["PNG", "GIF", "JPEG", "WEBP", "BMP"])
def test_every_beginning_of_a_picture_is_read_without_a_fault(form):
    data = picture(form, 20, 10)
    for end in range(min(len(data), 400)):
        assert read_image_size(data[:end]) in {(0, 0), (20, 10)}


def test_a_size_that_no_picture_has_is_not_believed():
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1 << 31, 5)
    assert read_image_size(head) == (0, 0)
    assert read_image_size(b"\xff\xd8\xff\xe0\x00\x00" * 4) == (0, 0)


@pytest.mark.parametrize(
    ("head", "claimed", "kind"),
    [
        (b"<html><script>", "image/png", "text/html"),
        (b"  \n<!DOCTYPE html>", "text/plain", "text/html"),
        (b"<?xml version='1.0'?><svg onload='x'>", "image/jpeg", "image/svg+xml"),
        (b"just words", "image/png", "application/octet-stream"),
        (b"just words", "text/plain; charset=utf-8", "text/plain"),
        (b"words\0and more", "text/plain", "application/octet-stream"),
        (b"MZ\x90", "text/plain", "application/vnd.microsoft.portable-executable"),
        (b"OggS\0", "video/ogg", "video/ogg"),
        (b"OggS\0", "text/html", "audio/ogg"),
        (b"\0\0\0\x20ftypisom", "", "video/mp4"),
        (b"PK\x03\x04", "application/epub+zip", "application/epub+zip"),
        (b"", "x/y\r\nSet-Cookie: a", "application/octet-stream"),
    ],
)
def test_the_bytes_decide_over_the_claim(head, claimed, kind):
    assert detect_media_type(head, claimed) == kind


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml", "application/pdf"])
def test_a_type_that_browsers_run_is_saved_and_not_shown(kind):
    assert kind not in INLINE
    assert content_disposition(kind, "a.html").startswith("attachment")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        ("a\r\nSet-Cookie: b\0.png", "aSet-Cookie: b.png"),
        ("x" * 1000, "x" * 255),
    ],
)
def test_a_name_has_no_folder_and_no_control_character(given, kept):
    assert sanitise_name(given) == kept
    assert "\n" not in content_disposition("image/png", given)
