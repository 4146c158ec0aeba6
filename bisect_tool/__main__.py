"""The command line's outermost layer: errors become one line and an exit code."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _run() -> int:
    """Run the command line; its exit code. KeyboardInterrupt passes, also while all of this is imported."""
    import click

    from bisect_tool.cli.main import cli
    from bisect_tool.errors import EXIT_FAILED, Interrupted, ToolError
    from bisect_tool.process import interrupt_on_sigterm

    interrupt_on_sigterm()
    ours = sys.argv[1:]
    debug = "--debug" in (ours[: ours.index("--")] if "--" in ours else ours)

    def say(text: str) -> None:
        click.echo(" ".join(text.split()), err=True)

    try:
        code = cli.main(prog_name="bisect_tool", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Interrupted as stop:
        say(stop.line())
        return stop.exit_code
    except ToolError as problem:
        if debug:
            raise
        say(f"error: {problem.line()}")
        return problem.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as problem:
        if isinstance(problem, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2 and newer
            problem.show()
            return problem.exit_code
        context = getattr(problem, "ctx", None)
        path = context.command_path if context is not None else "bisect_tool"
        say(f"error: {problem.format_message().rstrip('.')}; see `{path} --help`")
        return problem.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED
    except Exception as problem:
        if debug:
            raise
        advice = "`bisect_tool --debug …` shows the traceback"
        if isinstance(problem, OSError):  # standard output on a full disk, say: nothing to be mended in here
            where = f": {problem.filename}" if problem.filename else ""
            say(f"error: {problem.strerror or problem}{where}; {advice}")
        else:
            say(f"error: the tool failed: {type(problem).__name__}: {problem}; {advice}, to report it")
        return EXIT_FAILED


if __name__ == "__main__":
    main()
