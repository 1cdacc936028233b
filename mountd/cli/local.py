"""The commands that run the daemon: `run` and `demo`."""

from __future__ import annotations

import gc
import sys

import click

from mountd.cli.options import Options, config_option

_PORT = click.IntRange(1, 65535)


@click.command()
@config_option
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run the daemon; also the entrypoint of a container.

    Stays in the foreground, and may be process 1. SIGTERM and SIGINT stop it in order.

    \b
    Examples:
      mountd run
      mountd run -c /etc/mountd/mountd.yaml
    """
    from mountd import tls
    from mountd.process.init import fork_daemon

    options: Options = ctx.obj

    def daemon() -> int:
        # What is imported stays: to look among it for garbage, repeatedly, took a fifth of a start.
        gc.disable()
        # structlog imports it for tracebacks with colours and local variables; the daemon's log has neither.
        sys.modules["rich"] = None  # type: ignore[assignment]
        with tls.unread():
            from mountd.daemon.run import main

        gc.freeze()
        gc.enable()
        return main(options.config)

    ctx.exit(fork_daemon(daemon))


@click.command()
@click.option(
    "--directory", metavar="DIR", type=click.Path(), help="Directory for all files.  [default: a new one in /tmp]"
)
@click.option("--port", type=_PORT, metavar="N", help="Port of the stand-in WebUI.  [default: 7860, or a free one]")
@click.option("--s3-port", type=_PORT, metavar="N", help="Port of the local S3 server.  [default: a free one]")
@click.option("--http-port", type=_PORT, metavar="N", help="Port of mountd's HTTP API.  [default: 8780, or a free one]")
@click.pass_context
def demo(
    ctx: click.Context, directory: str | None, port: int | None, s3_port: int | None, http_port: int | None
) -> None:
    """Try mountd on this machine; needs no configuration.

    Starts a local S3 server with two versions of a small model, the mount, and a stand-in WebUI, and prints commands
    to try.

    \b
    Examples:
      mountd demo
      mountd demo --directory /tmp/demo --port 7861
    """
    from mountd.cli import terminal
    from mountd.demo.run import main

    ctx.exit(main(terminal, directory=directory, port=port, s3_port=s3_port, http_port=http_port))
