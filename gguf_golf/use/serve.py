"""`gguf-golf serve` and `gguf-golf tool`: hand over to the patched llama.cpp's own programs.

The server is llama-server with its OpenAI-compatible endpoints. Its own chat page is built with npm packages that a
source build would have to download, so it serves the small page in page/ instead.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gguf_golf.errors import InputError
from gguf_golf.runtime import build, library, rpc
from gguf_golf.runtime.config import Options

PAGE = Path(__file__).parent / "page"
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve_command(
    program: Path,
    model: Path,
    *,
    name: str,
    host: str,
    port: int,
    n_ctx: int | None,
    threads: int | None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command line of llama-server: `extra` goes to it as it is, after ours, so that it wins.

    `name` is what clients see; llama-server would tell them the path.
    """
    context = [] if n_ctx is None else ["--ctx-size", str(n_ctx)]
    cpu = [] if threads is None else ["--threads", str(threads)]
    # without the last two, any web page that the user visits could talk to the model through their browser
    listen = ["--host", host, "--port", str(port), "--cors-origins", "localhost"]
    return [str(program), "--model", str(model), "--alias", name, *listen, *context, *cpu, "--path", str(PAGE), *extra]


def serve(
    model: Path,
    *,
    name: str,
    host: str,
    port: int,
    api_key: str | None,
    n_ctx: int | None,
    threads: int | None,
    extra: Sequence[str],
    say: Callable[[str], None],
) -> NoReturn:
    """Become llama-server on `model`, which clients know by `name`: this process is replaced.

    Builds the program where it is missing. Raises InputError for a host that other machines reach without an API key,
    BuildError as the build does.
    """
    if host not in LOCAL and not api_key:
        raise InputError(
            f"--host {host} lets everyone on that network use the model: give an --api-key as well, and put a proxy "
            "that speaks TLS in front where the network is not yours"
        )
    program = find_tool("llama-server", say)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"chat page: {url}   OpenAI endpoint: {url}/v1   (Ctrl-C stops the server)")
    remote, environment = rpc.for_program()
    extra = [*remote, *extra]
    command = serve_command(program, model, name=name, host=host, port=port, n_ctx=n_ctx, threads=threads, extra=extra)
    # the key goes through the environment: a command line is seen by every user of the machine
    run_program(command, environment | ({"LLAMA_API_KEY": api_key} if api_key else {}))


def find_tool(name: str, say: Callable[[str], None]) -> Path:
    """One of llama.cpp's programs, `llama-bench` or just `bench`; built with the others where it is missing.

    Raises InputError for a program that the runtime does not have.
    """
    names = [target for component in ("tools", "tests") for target in build.COMPONENTS[component].targets]
    full = name if name in names else f"llama-{name}"
    if full not in names:
        raise InputError(f"there is no program {name}; there are {', '.join(sorted(names))}")
    component = "tools" if full in build.COMPONENTS["tools"].targets else "tests"
    runtime = library.current()
    if not (runtime / component).is_dir():
        say(f"building llama.cpp's programs ({component}), once: some minutes")
        options = Options(**library.manifest(runtime)["options"])
        library.make(options, ("lib", component))
    return library.tool(full)


def run_program(command: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process, so that signals, exit code and terminal are the program's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), os.environ | dict(environment or {}))
