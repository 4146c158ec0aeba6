"""The command group. Commands are imported when they are used: `--help` must not wait for them."""

from __future__ import annotations

import importlib

import click

from bisect_tool import __version__

# Name -> one line for `--help`, so that listing the commands imports none of them.
COMMANDS = {
    "build": "Build commits, branches and pull requests, ahead of measuring them.",
    "repro": "Measure MLX releases with the canonical repro of #3553, or a script of your own.",
    "bisect": "Find the commit between two ends that made the difference.",
    "compare": "Compare pull requests, commits or releases: faster, slower, the same, and still right?",
    "diagnose": "Say why time against M has its shape: bandwidth, arithmetic, waves, a floor, …",
    "model": "Time a whole model's step for M tokens, and what its linears explain of it.",
    "profile": "What limits a kernel, by ncu, perf or a Metal capture; times nothing.",
    "runs": "List the sessions in the ledger.",
    "report": "Print a session again, from its records alone.",
    "dispatch": "Which kernels a commit would launch on a GPU, from its own source.",
    "dispatch-log": "The commits of a history at which other kernels are launched.",
    "cache": "Stored builds and all else that is kept: list, size, prune, verify, export, import.",
    "doctor": "Say what on this host would spoil a measurement or a build.",
}

# The configuration file speaks to the commands of a group as well.
GROUPS = {"cache": ("list", "size", "prune", "verify", "export", "import")}


class LazyGroup(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bisect_tool.cli.{name.replace('-', '_')}").command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bisect_tool")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:  # noqa: ARG001  `__main__` looks for it
    """Reproduce an MLX performance issue and print a table that can be pasted into a GitHub issue.

    Nothing is ever posted anywhere.
    """
    from bisect_tool import config

    ctx.obj = config.load()
    ctx.default_map = ctx.obj.default_map(COMMANDS, GROUPS)
