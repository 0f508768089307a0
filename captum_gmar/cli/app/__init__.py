"""The command ``captum-gmar app``: a local web page."""

import argparse

from captum_gmar.cli.options import add_device_and_size, positive_number

HOST = "127.0.0.1"


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser(
        "app",
        help="open a local page: drop a photo, choose class and methods, see maps and numbers",
        description="Serves a page on this machine: drop a photo or take a built-in scene, choose model, class, "
        "contrast and methods, see maps side by side with their faithfulness, click a patch to see what contributed to "
        "it, download picture and arrays. No photo is kept. Requires the extra [app].",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder (default: built-in)")
    add(
        "--host",
        default=HOST,
        help="address to serve on (default: %(default)s, this machine alone); 0.0.0.0 lets others in",
    )
    add("--port", type=positive_number, metavar="N", help="port (default: the first free one from 7860 on)")
    add_device_and_size(parser)


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Serve the page until it is interrupted."""
    from captum_gmar.cli.app.page import serve

    serve(arguments.model, arguments.size, arguments.device, arguments.host, arguments.port)
    return 1, 0
