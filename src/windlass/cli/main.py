"""`windlass COMMAND …`: finds the command's module, runs it, and turns every `WindlassError` into two clear lines.

A command is a module `windlass.cli.NAME` with `configure(parser)` and `run(args) -> int`. Only the chosen one is
imported, so that `windlass --help` stays fast.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

from windlass.core.errors import InputError, WindlassError
from windlass.core.version import __version__

GROUPS: dict[str, dict[str, str]] = {
    "begin": {
        "demo": "the whole loop on this machine's documents: build, serve, ask, evaluate, improve",
        "init": "make an empty workspace and a commented windlass.toml in this folder",
        "doctor": "what is installed, what is missing, what answers, and what to do about it",
    },
    "documents": {
        "ingest": "bring folders, files and web pages into a living index, and keep it up to date",
        "ask": "ask the documents: an answer with citations, or that they do not hold one",
        "index": "make a searchable index of a corpus, search one, and look after living ones",
        "slack": "answer in Slack: threads are conversations, sources are links, thumbs become scores",
    },
    "typed tasks": {
        "run": "run a task: a typed AI function that stands in a Python file",
        "task": "look at tasks: what they say to a model, and the form of the answer",
        "prompt": "prompts of tasks: versions, labels, differences, and the search for better ones",
    },
    "models": {
        "corpus": "read, clean, deduplicate and split documents; say what was left out and why",
        "tokenizer": "train, measure or import a tokenizer",
        "train": "train a model from random weights by a recipe or one dial, beside honest baselines",
        "scaling": "fit a scaling law to a few small runs, predict a larger one and check it",
        "tune": "make a model better at one job, by examples",
        "merge": "one model of several that were trained from the same base, by their weights",
        "adapters": "look into adapters; make one model of adapter and base, or one adapter of several",
        "generate": "let a model of this workspace go on with a text",
        "chat": "talk with a model in the terminal",
        "export": "write a model as one GGUF file, which llama.cpp and its relatives run",
        "import": "make a model of this workspace of a GGUF file",
    },
    "serving": {
        "serve": "one server: models and assistant by the OpenAI API, and the studio",
        "keys": "API keys of the server: scopes, limits, and what they used",
        "gateway": "one OpenAI-compatible address in front of other providers and engines, by a file",
        "deploy": "write what starts a model or a release elsewhere: container, compose, Kubernetes, systemd, vLLM",
        "probe": "compare two OpenAI-compatible servers answer by answer",
    },
    "evaluation": {
        "exam": "derive questions with known answers from a corpus, or show them",
        "metrics": "measure texts beside references, with intervals; list the metrics there are",
        "eval": "score a typed task, a variant on its exam or a model on benchmarks, with intervals",
        "compare": "compare variants item by item: GO, NO-GO, or how many more items it takes",
        "judge": "judge outputs by a model, and tell how far it says what people say",
        "review": "let people judge: queues of items, labelled in the studio, blind where two are compared",
    },
    "the loop": {
        "feedback": "score an answer: up or down, and which document would have been right",
        "turn": "learn from feedback: train a candidate, compare it on unseen questions, promote or refuse it",
        "promote": "make a task serve a variant, by an experiment or by decision",
        "canary": "try variants on a share of live traffic: sticky, watched, and taken back when they do harm",
        "rollback": "make a task serve the variant that was live before",
        "releases": "what each task serves and served, with every promotion and rollback",
    },
    "what there is": {
        "traces": "recorded calls; one as a waterfall of its spans",
        "runs": "executions with their configuration, environment and curves",
        "artifacts": "what was made: corpora, models, indexes, adapters, variants, experiments",
        "lineage": "from an answer, a generated token or an artifact back to the source documents",
    },
}
"""Commands by what they are for, in the order of `--help`, each with its line."""

_DESCRIPTION = """\
Build, adapt, serve and apply generative AI on your own machine, in one loop that only moves up.

New here?   windlass ingest FOLDER, then windlass ask "…": your documents answer, with citations.
            windlass demo shows the whole loop, in a few minutes."""

COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    # OpenMP's threads wait by spinning, as a rule for milliseconds, which takes the cores from those that work wherever
    # there are more threads than cores. Spinning for microseconds is as fast alone and twice as fast in company
    # (docs/lab.md). Must be set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Large tensors in pages of 2 MB: a step of training on a CPU asks the kernel for memory less often (docs/lab.md).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        # Names of files may be no valid text, and a pipe may know fewer letters: nothing ends a command for that.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = _ordered(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    known, unknown = parser.parse_known_args(arguments[:1])
    if unknown:
        parser.error(f"{unknown[0]} stands before a command. Options stand behind it: windlass COMMAND [OPTIONS].")
    if known.command is None:
        parser.print_help()
        return 0
    if known.command not in COMMANDS:
        near = difflib.get_close_matches(known.command, COMMANDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "`windlass --help` lists them."
        print(f"windlass: There is no command '{known.command}'.\n          {hint}", file=sys.stderr)
        return InputError.exit_code
    module = importlib.import_module(f"windlass.cli.{known.command.replace('-', '_')}")
    command = argparse.ArgumentParser(
        prog=f"windlass {known.command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.configure(command)
    # Behind an action, as in `windlass index show docs --debug`, too: there argparse would not know it.
    args = command.parse_args([word for word in arguments[1:] if word != "--debug"])
    args.debug = "--debug" in arguments
    try:
        status = int(module.run(args))
        sys.stdout.flush()  # here, where a reader who went away is understood
        return status
    except WindlassError as error:
        return _refused(error, args.debug)
    except ModuleNotFoundError as error:
        from windlass.core.extras import lacking

        missing = lacking(f"`windlass {known.command}`", error.name or "")
        return _unexpected(error, args.debug) if missing is None else _refused(missing, args.debug)
    except KeyboardInterrupt:
        if args.debug:
            traceback.print_exc()
        print("windlass: stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said plainly
        return _unexpected(error, args.debug)


def _refused(error: WindlassError, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"windlass: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"          {error.hint}", file=sys.stderr)
    return error.exit_code


def _unexpected(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"windlass: unexpected {type(error).__name__}: {error}", file=sys.stderr)
    does = "Report what stands above." if debug else "Run again with --debug and report what it prints."
    print(f"          This is a fault in windlass. {does}", file=sys.stderr)
    return 70


def _ordered(arguments: list[str]) -> list[str]:
    """`windlass help ask` is `windlass ask --help`, and --debug may stand before the command too."""
    if arguments[:1] == ["help"]:
        return [*arguments[1:2], "--help"]
    if arguments[:1] == ["--debug"] and arguments[1:]:
        return [*arguments[1:], "--debug"]
    return arguments


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    listing = "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<{width}}{line}" for name, line in group.items())])
        for title, group in GROUPS.items()
    )
    parser = argparse.ArgumentParser(
        prog="windlass",
        usage="windlass COMMAND [OPTIONS]",
        description=_DESCRIPTION,
        epilog=f"{listing}\n\n`windlass COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"windlass {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
