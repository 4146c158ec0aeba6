"""The command line's outermost layer: errors become one line and an exit code."""

from __future__ import annotations

import sys


def main() -> None:
    import click

    from bisect_tool.cli.main import cli
    from bisect_tool.errors import EXIT_INTERRUPTED, ToolError
    from bisect_tool.process import interrupt_on_sigterm

    interrupt_on_sigterm()
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except ToolError as problem:
        if debug:
            raise
        click.echo(f"error: {problem.line()}", err=True)
        sys.exit(problem.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as problem:
        if debug:
            raise
        click.echo(
            f"error: the tool failed: {type(problem).__name__}: {problem}; "
            "run again with --debug for the traceback and report it",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
