"""Pages in a real browser."""

import base64
import json
import re
import shutil
import subprocess

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def told_by(html, folder, *options):
    """Return what a page's script writes in a browser, between two @."""
    assert BROWSER is not None
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*command, *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, check=True)
    told = re.search("@([A-Za-z0-9+/=]+)@", done.stdout)
    assert told is not None, done.stdout[-2000:]
    return json.loads(base64.b64decode(told[1]))
