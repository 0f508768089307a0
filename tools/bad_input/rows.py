"""A row is one kind of bad input with the answer it must get. Commands run in this process, each in a fresh folder."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from captum_gmar.cli.main import main
from tools.bad_input.world import make_models, make_place, unprivileged

LONGEST = 20  # seconds that a command may take
Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Command:
    """A call of ``captum-gmar`` that must end in a clear line.

    Attributes:
        group: What it is counted under.
        words: The arguments; MODEL stands for the folder of a whole model, MODELS for the folder of all.
        says: A regular expression, of any case, that a line on stderr must match, or "" where nothing need be said.
        status: The exit status.
        prepare: Called with the folder before the command runs in it.
        leaves: Patterns of what it may write; where it fails as a whole, nothing.
        as_somebody_else: Whether the superuser must not run it.
    """

    group: str
    words: tuple[str, ...]
    says: str
    status: int = 2
    prepare: Prepare = lambda folder: None
    leaves: tuple[str, ...] = ()
    as_somebody_else: bool = False

    @property
    def name(self) -> str:
        words = (word if len(word) < 40 else f"{word[:20]}… of {len(word)} letters" for word in self.words)
        return " ".join(repr(word) if not word or " " in word else word for word in words)

    def fault(self, place: Place) -> str | None:
        """Run it; what is wrong with the answer, or None."""
        folder = place.fresh()
        self.prepare(folder)
        before = _tree(folder)
        status, error = place.run(folder, self.words, self.as_somebody_else)
        lines = [line for line in error.splitlines() if line.strip()]
        if "Traceback" in error:
            return f"traceback: {lines[-1]}"
        if status != self.status:
            return f"exit status {status} in place of {self.status}: {lines[-1] if lines else 'nothing said'}"
        if status and (others := [line for line in lines if not line.startswith("captum-gmar: ")]):
            return f"other lines than its own: {others[0]}"
        if status == 2 and sum(line.startswith("captum-gmar: error: ") for line in lines) != 1:
            return f"{len(lines)} lines in place of one: {lines}"
        if self.says and not any(re.search(self.says, line, re.IGNORECASE) for line in lines):
            return f"it does not say {self.says!r}: {lines[-1] if lines else 'nothing'}"
        after = _tree(folder)
        changed = [path for path in sorted(before) if after.get(path) != before[path]]
        gone = [str(path) for path in changed if path not in after or not _allowed(path, self.leaves)]
        new = [str(path) for path in sorted(after.keys() - before.keys()) if not _allowed(path, self.leaves)]
        if gone or new:
            return f"left behind: {new}" if new else f"changed: {gone}"
        return None


@dataclass(frozen=True)
class Call:
    """A call of the library that must raise an error of one of the kinds that Python callers expect.

    Attributes:
        group: What it is counted under.
        name: What is wrong with it.
        call: Makes the call; may give what must hold afterwards, a sentence where it does not.
        says: A regular expression, of any case, that the error's text must match, or "" where the call must succeed.
        kinds: The errors it may be.
    """

    group: str
    name: str
    call: Callable[[], object]
    says: str
    kinds: tuple[type[Exception], ...] = (ValueError, TypeError, OSError, RuntimeError)

    def fault(self, place: Place) -> str | None:
        """Call it; what is wrong with the answer, or None."""
        try:
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()), chdir(place.fresh()):
                self.call()
        except self.kinds as error:
            text = str(error)
            if not self.says:
                return f"{type(error).__name__}: {text}"
            return (
                None
                if re.search(self.says, text, re.IGNORECASE)
                else f"it does not say {self.says!r}: {text.splitlines()[0]}"
            )
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} (in {at.name}, {Path(at.filename).name}:{at.lineno})"
        return "accepted" if self.says else None


Row = Command | Call


@dataclass
class Place:
    """The folder that everything happens in: models are made once, all else anew for every row."""

    root: Path
    count: int = 0
    template: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root.chmod(0o755)
        self.template = self.root / "template"
        make_models(self.root / "models")
        make_place(self.template)

    def fresh(self) -> Path:
        """A new folder with a photo, photos, classes, a table and an empty folder."""
        self.count += 1
        shutil.rmtree(self.root / "rows" / str(self.count - 1), ignore_errors=True)
        folder = self.root / "rows" / str(self.count)
        shutil.copytree(self.template, folder)
        for path in (folder, folder / "out"):
            path.chmod(0o777)
        return folder

    def words(self, words: Sequence[str]) -> list[str]:
        models = str(self.root / "models")
        return [word.replace("MODELS", models).replace("MODEL", f"{models}/vit") for word in words]

    def run(self, folder: Path, words: Sequence[str], as_somebody_else: bool = False) -> tuple[int, str]:
        """Run the command in a folder; its exit status, and what it said on stderr."""
        out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        signal.signal(signal.SIGALRM, _too_long)
        with chdir(folder), redirect_stdout(out), redirect_stderr(error):
            signal.alarm(LONGEST)
            try:
                with unprivileged() if as_somebody_else else nullcontext():
                    status = main(self.words(words))
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                status = 70
                sys.stderr.write(traceback.format_exc())
            finally:
                signal.alarm(0)
        for stream in (out, error):
            stream.flush()
        return status, error.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]


def _too_long(*_: object) -> None:
    raise BaseException(f"it takes longer than {LONGEST} seconds")


def _tree(folder: Path) -> dict[Path, tuple[int, bool]]:
    paths = (Path(parent, name) for parent, *names in os.walk(folder) for name in (*names[0], *names[1]))
    return {path.relative_to(folder): (path.lstat().st_size * path.is_file(), path.is_dir()) for path in paths}


def _allowed(path: Path, patterns: Iterable[str]) -> bool:
    return any(path.match(pattern) or any(parent.match(pattern) for parent in path.parents) for pattern in patterns)
