"""Makes the sample files in this directory. Run once, by hand; the files are in the repository.

Needs `apt-get install espeak-ng` and `pip install av numpy python-docx`. The PDF is written by hand, so that
no PDF library is needed.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import av
import docx
import numpy as np

HERE = Path(__file__).resolve().parent
RATE = 16000  # samples per second
FRAMES_PER_SECOND = 10
WIDTH, HEIGHT = 320, 180

REPORT = [
    "The bridge stands between an ingestion pipeline and the machines that convert its files.",
    "The pipeline hands over a job. A remote worker claims it, fetches the file over one HTTPS",
    "address, shows that it lives, and gives back the text. The pipeline then goes on.",
    "This page was written for the demonstration. It holds one paragraph, and one number: 42.",
]


def make_pdf(path: Path) -> None:
    """Write a one-page PDF 1.4 with a title and a paragraph in Helvetica."""
    lines = ["BT /F1 18 Tf 72 760 Td (Report on the bridge) Tj ET"]
    lines += [f"BT /F1 11 Tf 72 {728 - 16 * i} Td ({text}) Tj ET" for i, text in enumerate(REPORT)]
    stream = "\n".join(lines).encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (Report on the bridge) >>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer\n<< /Size %d /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        start,
    )
    path.write_bytes(data)


def make_docx(path: Path) -> None:
    """Write a DOCX with a heading, a list and a table."""
    document = docx.Document()
    document.core_properties.author = "the bridge"
    document.core_properties.title = "Minutes"
    document.add_heading("Minutes of a short meeting", 1)
    document.add_paragraph("Present: the pipeline, the bridge, two remote workers.")
    for text in ("The pipeline enqueues.", "The bridge remembers.", "The workers convert."):
        document.add_paragraph(text, style="List Bullet")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Kind", "Files"
    for kind, count in (("document", "2"), ("audio", "1"), ("video", "1")):
        row = table.add_row().cells
        row[0].text, row[1].text = kind, count
    document.save(str(path))


def make_html(path: Path) -> None:
    """Write an HTML page with a heading, a link, a list and a table."""
    path.write_text(
        """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Notes from the web</title></head>
<body>
<h1>Notes from the web</h1>
<p>A page as a crawler would bring it, with a <a href="https://example.com/">link</a>, <em>some</em>
<b>marks</b> and letters beyond ASCII: Grüße, naïve, 東京.</p>
<ul><li>first point</li><li>second point</li></ul>
<table><tr><th>state</th><th>meaning</th></tr><tr><td>pending</td><td>waits for a worker</td></tr>
<tr><td>processing</td><td>is with a worker</td></tr></table>
</body>
</html>
""",
        encoding="utf-8",
    )


def speak(text: str, path: Path) -> None:
    """Write `text`, spoken by espeak-ng, as a 16 kHz mono WAV."""
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw.wav"
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(raw), text], check=True)
        with av.open(str(raw)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream("pcm_s16le", rate=RATE, layout="mono")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in [*source.decode(audio=0), None]:
                for part in resampler.resample(frame):
                    target.mux(stream.encode(part))
            target.mux(stream.encode(None))


def make_mp4(spoken: Path, path: Path) -> None:
    """Write an MP4: a growing bar on a plain background, as long as `spoken`, with that sound in AAC."""
    with av.open(str(spoken)) as source, av.open(str(path), "w") as target:
        seconds = source.duration / av.time_base
        pictures = target.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures.bit_rate = 100_000
        sound = target.add_stream("aac", rate=RATE, layout="mono")
        sound.bit_rate = 48_000
        count = int(seconds * FRAMES_PER_SECOND)
        for number in range(count):
            picture = np.full((HEIGHT, WIDTH, 3), (32, 48, 80), dtype=np.uint8)
            picture[80:100, : WIDTH * (number + 1) // count] = (240, 180, 60)
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(pictures.encode(None))
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        for frame in [*source.decode(audio=0), None]:
            for part in resampler.resample(frame):
                target.mux(sound.encode(part))
        target.mux(sound.encode(None))


def main() -> None:
    """Make all five files."""
    make_pdf(HERE / "report.pdf")
    make_docx(HERE / "minutes.docx")
    make_html(HERE / "notes.html")
    speak("This is a test. One two three four five six seven eight nine ten. The end.", HERE / "speech.wav")
    with tempfile.TemporaryDirectory() as directory:
        spoken = Path(directory) / "spoken.wav"
        speak("hello world. one two three four five. this is the end.", spoken)
        make_mp4(spoken, HERE / "clip.mp4")


if __name__ == "__main__":
    main()
