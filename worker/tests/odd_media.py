"""Odd pictures, sounds and films; see odd_files."""

from __future__ import annotations

import io
import struct

from odd_material import MP4, NOISE, PDF, WAV, add, picture, wav


def pictures() -> None:
    add("sign.png", "document", lambda: picture("PNG", "Bridge closed"), "text", "Bridge closed")
    add("sign.jpg", "document", lambda: picture("JPEG", "Bridge closed"), "text", "Bridge closed")
    add("sign.tiff", "document", lambda: picture("TIFF", "Bridge closed"), "text", "Bridge closed")
    add("sign-as.txt", "document", lambda: picture("PNG", "Bridge closed"), "text", "Bridge closed")
    add("white.png", "document", lambda: picture("PNG"), "warned", "OCR found no text")
    add("dot.png", "document", lambda: picture("PNG", size=(1, 1)), "warned", "OCR found no text")
    add("cut.png", "document", lambda: picture("PNG", "Bridge closed")[:60], "refused", "picture cannot be read")
    add("noise.png", "document", b"\x89PNG\r\n\x1a\n" + NOISE, "refused", "picture cannot be read")
    add("scan.pdf", "document", _scan, "text", "Scanned page")


def _scan() -> bytes:
    from PIL import Image

    image, file = Image.open(io.BytesIO(picture("PNG", "Scanned page"))), io.BytesIO()
    image.save(file, "PDF")
    return file.getvalue()


def media() -> None:
    silence = bytes(2 * 16000)
    short = wav(WAV[44:10_044])  # a third of a second
    add("empty.wav", "audio", b"", "refused", "0 bytes")
    add("no-samples.wav", "audio", wav(b""), "warned", "no samples")
    add("header-only.wav", "audio", WAV[:44], "refused", "convert it to WAV")
    add("one-sample.wav", "audio", wav(b"\0\0"), "warned", "No speech")
    add("silence.wav", "audio", wav(silence), "warned", "No speech")
    add("cut.wav", "audio", WAV[:10_000], "text", "")
    add("half-a-sample.wav", "audio", short[:-1], "text", "")
    add("eight-channels.wav", "audio", wav(silence * 8, channels=8), "warned", "No speech")
    add("8-bit.wav", "audio", wav(b"\x80" * 16000, width=1), "warned", "No speech")
    add("96-khz.wav", "audio", wav(silence * 6, rate=96000), "warned", "No speech")
    add("no-rate.wav", "audio", wav(silence)[:24] + struct.pack("<I", 0) + wav(silence)[28:], "refused", "convert it")
    add("noise.wav", "audio", NOISE, "refused", "convert it to WAV")
    add("noise-in.wav", "audio", b"RIFF" + NOISE, "refused", "convert it to WAV")
    add("text.mp3", "audio", b"I am no sound at all, but a text. " * 30, "refused", "convert it to WAV")
    add("wav-as.mp3", "audio", short, "text", "")
    add("pdf-as.wav", "audio", PDF, "refused", "")
    add("list.m3u8", "audio", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        "refused", "")  # fmt: skip
    add(
        "itself.m3u8",
        "audio",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsource.m3u8\n#EXT-X-ENDLIST\n",
        "refused",
        "",
    )
    add(
        "passwd.m3u8",
        "audio",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "refused",
        "",
    )
    add("list.ffconcat", "audio", b"ffconcat version 1.0\nfile /etc/passwd\n", "refused", "")
    add("itself.ffconcat", "audio", b"ffconcat version 1.0\nfile source.ffconcat\n", "refused", "")
    add("session.sdp", "audio", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",  # noqa: E501
        "refused", "")  # fmt: skip
    add("list.mpd", "audio", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        b'<AdaptationSet><Representation id="1" mimeType="audio/mp4"><BaseURL>http://127.0.0.1:9/x.mp4</BaseURL>'
        b"</Representation></AdaptationSet></Period></MPD>", "refused", "")  # fmt: skip
    add("list.xbin", "audio", b"XBIN\x1a\x50\0\x19\0\x10\0" + b"A\x07" * 2000, "refused", "not followed")
    sound = MP4.index(b"mdat") + 4
    for name, good, expected, part in (("late-noise.mp4", 20_000, "warned", "breaks off after 2 s"),
                                       ("early-noise.mp4", 400, "refused", "cannot be decoded")):  # fmt: skip
        ends = MP4.index(b"moov") - 4
        noise = b"\xff" * (ends - sound - good)
        add(name, "video", MP4[: sound + good] + noise + MP4[ends:], expected, part)
    add("cut.mp4", "video", MP4[: len(MP4) // 2], "refused", "convert it to WAV")
    add("half-of-its-sound.mp4", "video", MP4[:-2000], "refused", "convert it to WAV")
    add("empty.mp4", "video", b"", "refused", "0 bytes")
    add("noise.mp4", "video", b"\0\0\0\x20ftypisom" + NOISE, "refused", "convert it to WAV")
    add("picture.mp4", "video", lambda: picture("PNG", "x"), "refused", "")
    add("sound.mp4", "video", short, "text", "")
