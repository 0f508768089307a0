"""Every option of every command with a value of the wrong kind, out of range, missing, too long or out of reach."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.bad_input.rows import Command, Prepare

LONG = "x" * 300  # letters: longer than any file's name
GROUP = "options"
PHOTO = ("explain", "photo.png", "--model", "MODEL")
COMPARE = ("compare", "photo.png", "--model", "MODEL", "--methods", "rollout", "--steps", "2")
EVALUATE = ("evaluate", "photos.csv", "--model", "MODEL", "--methods", "rollout", "--steps", "2", "--output", "results")
HEADS = ("heads", "photos", "--model", "MODEL", "--scores", "entropy", "--output", "heads.png")
BASES = {"explain": PHOTO, "compare": COMPARE, "evaluate": EVALUATE, "heads": HEADS}


def unreadable(folder: Path) -> None:
    """Make a folder that nobody else may enter, with a photo and a model's files in it."""
    locked = folder / "locked"
    shutil.copytree(folder / "photos", locked)
    locked.chmod(0)


def folders(*names: str) -> Prepare:
    """Put folders where files are expected."""
    return lambda folder: [(folder / name).mkdir() for name in names]


def file(name: str) -> Prepare:
    """Put a file where a folder is expected."""
    return lambda folder: (folder / name).touch()


def _bad(command: str, option: str, values: dict[str, str]) -> list[Command]:
    """A row for each value, with what must be said of it."""
    return [Command(GROUP, (*BASES[command], option, value), says) for value, says in values.items()]


def _numbers(command: str, option: str, *, zero: bool = False) -> list[Command]:
    wrong = ["-1", "many", "1.5", "", "1e3", LONG, *([] if zero else ["0"])]
    return _bad(command, option, dict.fromkeys(wrong, option))


def _common(command: str) -> list[Command]:
    model = BASES[command].index("MODEL")
    words = [(*BASES[command][:model], value, *BASES[command][model + 1 :]) for value in ("", LONG, f"{LONG}/model")]
    return [
        *(Command(GROUP, row, "--model|no such folder|model") for row in words),
        *_bad(command, "--device", {"tpu": "--device", "cuda:99": "--device", "": "--device", "cuda:-1": "--device"}),
        *_bad(command, "--size", {"36": "--size.*36", "4": "at least one patch", "16000000": "--size|memory|large"}),
        *_numbers(command, "--size"),
        *_numbers(command, "--batch-size"),
        Command(GROUP, (*BASES[command], "--wrong"), "--wrong"),
        Command(GROUP, (*BASES[command], "--batch-size"), "--batch-size"),
        Command(GROUP, (*BASES[command], "photo.png", "photo.png", "--model"), "--model"),
    ]


def _classes(command: str, option: str) -> list[Command]:
    values = {
        "4": "from 0 to 3",
        "-1": "from 0 to 3",
        "crane": r"names several classes: 1 \(crane\); 2 \(crane\)",
        "tabi": r"Near are 0 \(tabby",
        "": option,
        "1.5": "1.5",
        "9" * 30: "from 0 to 3",
        LONG: option,
    }
    return _bad(command, option, values)


def _files(command: str, option: str, ending: str) -> list[Command]:
    """Names of files to write that no file can have, or that are out of reach."""
    base = BASES[command]
    blocked = (*base, option, f"folder{ending}")
    of_folder = [Command(GROUP, blocked, "folder", prepare=folders(f"folder{ending}"))] if option != "--output" else []
    return [
        *of_folder,
        Command(GROUP, (*base, option, f"{LONG}{ending}"), "too long"),
        Command(GROUP, (*base, option, f"photo.png/a{ending}"), "photo.png"),
        Command(GROUP, (*base, option, f"folder{ending}/a{ending}"), "folder", prepare=file(f"folder{ending}")),
        Command(GROUP, (*base, option, f"locked/a{ending}"), "locked", prepare=unreadable, as_somebody_else=True),
        Command(GROUP, (*base, option, f"a\0b{ending}"), "null|NUL|a.*b"),
        Command(GROUP, (*base, option, "photo.txt"), r"\.txt|photo.txt"),
    ]


def _top() -> list[Command]:
    return [
        Command(GROUP, (), "COMMAND"),
        Command(GROUP, ("",), "COMMAND|choice"),
        Command(GROUP, ("explian",), "explian"),
        Command(GROUP, ("--wrong",), "COMMAND|--wrong"),
        Command(GROUP, ("evaluate",), "--output"),
    ]


def _explain() -> list[Command]:
    names = {"gmar": "Near are gmar-l1", "": "Got ''", "nothing": "nothing", LONG: "Got|--method"}
    with_tokens = ["register", "1", "1,2,3", "1,-2", "4,0", "distillation"]
    return [
        *_common("explain"),
        *_bad("explain", "--methods", names),
        *_classes("explain", "--target"),
        *_bad("explain", "--target", {"top0": "top0|--target", "top-1": "--target", "topx": "topx"}),
        *_classes("explain", "--contrast"),
        *_bad("explain", "--contrast", {"top1": "index or a label"}),
        *_bad("explain", "--tokens", dict.fromkeys(["", *with_tokens], "--tokens|patch grid|distillation")),
        Command(GROUP, (*PHOTO, "--methods", "saliency", "--tokens", "cls"), "--tokens"),
        Command(GROUP, (*PHOTO, "--methods", "saliency", "--contrast", "0"), "--contrast"),
        Command(GROUP, (*PHOTO, "--methods", "rollout", "--contrast", "0"), "--contrast"),
        Command(GROUP, (*PHOTO, "--methods", "raw-attention", "--target", "0", "--contrast", "3"), "--contrast"),
        Command(GROUP, (*PHOTO, "--target", "0", "--contrast", "tabby"), "another class"),
        Command(GROUP, (*PHOTO, "--methods", "rollout,legrad", "--target", "top2"), "top|one method"),
        *_files("explain", "--output", ".png"),
        Command(GROUP, (*PHOTO, "--output", "photo.png"), "image itself"),
        Command(GROUP, ("explain", "photos", "--model", "MODEL", "--output", "a.png"), "folder"),
        *_files("explain", "--save-array", ".npz"),
        Command(GROUP, (*PHOTO, "--output", "locked", "--batch-size", "1"), "locked", 2, unreadable, (), True),
    ]


def _compare() -> list[Command]:
    base = ("compare", "photo.png", "--model", "MODEL", "--methods")
    return [
        *_common("compare"),
        *(Command(GROUP, (*base, names), says) for names, says in _METHOD_LISTS.items()),
        *_classes("compare", "--target"),
        *_bad("compare", "--removal", {"white": "white", "": "--removal", "blur,zero": "--removal"}),
        *_numbers("compare", "--steps"),
        *_bad("compare", "--steps", {"17": "--steps|steps"}),
        *_numbers("compare", "--ig-steps"),
        *_files("compare", "--output", ".png"),
        *_files("compare", "--save-table", ".csv"),
    ]


_METHOD_LISTS = {
    "": "--methods",
    ",": "--methods",
    "rollout,nothing": "nothing",
    "rollout,,legrad": "--methods",
    LONG: "--methods",
}


def _evaluate() -> list[Command]:
    base = ("evaluate", "photos.csv", "--model", "MODEL", "--steps", "2", "--output", "results", "--methods")
    return [
        *_common("evaluate"),
        *(Command(GROUP, (*base, names), says) for names, says in _METHOD_LISTS.items()),
        *_bad("evaluate", "--metrics", {"": "--metrics", "accuracy": "accuracy", "pointing-game": "box|mask"}),
        *_bad("evaluate", "--removal", {"": "--removal", "white": "white"}),
        *_bad("evaluate", "--target", {"3": "--target", "": "--target"}),
        *_numbers("evaluate", "--steps"),
        *_bad("evaluate", "--steps", {"17": "--steps|steps"}),
        *_numbers("evaluate", "--limit"),
        *_numbers("evaluate", "--seed", zero=True),
        *_bad("evaluate", "--precision", {"float16": "--precision", "": "--precision"}),
        *_outputs("evaluate"),
    ]


def _heads() -> list[Command]:
    base = ("heads", "photos", "--model", "MODEL", "--output", "heads.png", "--scores")
    return [
        *_common("heads"),
        *(Command(GROUP, (*base, names), "--scores|Got|nothing") for names in ("", "nothing", "entropy,nothing", LONG)),
        *_classes("heads", "--target"),
        *_bad("heads", "--target", {"label": "label"}),
        *_numbers("heads", "--limit"),
        *_numbers("heads", "--seed", zero=True),
        *_files("heads", "--output", ".png")[:-1],
        Command(GROUP, (*HEADS[:-1], "pic.gif"), r"\.gif"),
        *_outputs("heads"),
        Command(GROUP, (*HEADS, "--ablate"), "--ablate|folder|--output"),
    ]


def _outputs(command: str) -> list[Command]:
    """A folder of results that cannot be one."""
    base = BASES[command][:-1]
    return [
        Command(GROUP, (*base, LONG), "too long"),
        Command(GROUP, (*base, ""), "--output"),
        Command(GROUP, (*base, "photo.png/results"), "photo.png"),
        Command(GROUP, (*base, "photos.csv"), "photos.csv"),
        Command(GROUP, (*base, "locked"), "locked", prepare=unreadable, as_somebody_else=True),
        Command(GROUP, (*base, "locked/results"), "locked", prepare=unreadable, as_somebody_else=True),
        Command(GROUP, (*base, "a\0b"), "null|NUL|a.*b"),
    ]


def _inputs() -> list[Command]:
    """Images and data that are not there, no files, or out of reach."""
    rows = []
    for command, base in BASES.items():
        rest = base[2:]
        values = {
            "": "photo|file|folder|''|image",
            "none.png": "none.png",
            LONG: "too long|no such",
            "a\0b.png": "null|NUL|no such|a.*b",
            "photo.png/a.png": "photo.png",
            "out": "out",
            "pipe.png": "pipe.png",
            "loop.png": "loop.png",
            "dangling.png": "dangling.png",
            "photo.txt": "photo.txt",
            os.devnull: "null",
        }
        rows += [Command("inputs", (command, value, *rest), says, 2, _odd_files) for value, says in values.items()]
        rows += [
            Command("inputs", (command, "locked", *rest), "locked", 2, unreadable, (), True),
            Command("inputs", (command, "locked/0.png", *rest), "locked", 2, unreadable, (), True),
            Command("inputs", (command, "photo.png", *rest), "photo.png", 2, _unreadable_photo, (), True),
        ]
    return rows


def _unreadable_photo(folder: Path) -> None:
    (folder / "photo.png").chmod(0)


def _odd_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.png").symlink_to("nothing.png")
    (folder / "photo.txt").write_text("text")


ROWS = [*_top(), *_explain(), *_compare(), *_evaluate(), *_heads(), *_inputs()]
