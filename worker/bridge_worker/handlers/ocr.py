"""Text out of pictures, by the program tesseract where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from bridge_worker.job import Job, PermanentError

LANGUAGE = re.compile(r"[A-Za-z_]{3,20}(\+[A-Za-z_]{3,20}){0,5}")


def installed() -> bool:
    """Return whether tesseract is installed."""
    return shutil.which("tesseract") is not None


def read(job: Job, picture: Path) -> str:
    """Return the text of a picture. Only a file that is known to be one: of a text tesseract would open what it lists.

    The languages are the worker's `--option ocr_language=eng+deu` (default eng). Raises PermanentError for a picture
    that cannot be read, JobCancelled.
    """
    language = job.options.get("ocr_language", "eng")
    if not LANGUAGE.fullmatch(language):
        raise ValueError(f"--option ocr_language={language!r}: expected a form such as eng+deu")
    command = ["tesseract", str(picture), "stdout", "-l", language]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job.on_cancel(process.kill)
    out, err = process.communicate()
    job.raise_if_cancelled()
    if process.returncode != 0:
        said = err.decode("utf-8", "replace")
        if "loading language" in said or "Failed loading" in said or "TESSDATA" in said:
            raise RuntimeError(f"tesseract has no data for the language {language}")  # this machine's fault, not its
        raise PermanentError("the picture cannot be read: it is damaged, or of a kind that tesseract does not know")
    return out.decode("utf-8", "replace")
