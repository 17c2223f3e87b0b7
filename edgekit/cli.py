"""The command line of the host: words in, one call, words out. With terminal.py the only place that prints or exits.

Refuses with one line and a hint: exit code 1 something to mend, 2 usage, 3 budget missed, 4 too few samples to tell."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from edgekit_runtime.errors import EdgeKitError

from edgekit.cli_bench import bench
from edgekit.cli_encrypt import encrypt
from edgekit.cli_flash import devices, flash, logs, rollback, status
from edgekit.cli_keys import keys_verbs
from edgekit.cli_oci import pack, pull, push
from edgekit.cli_options import answer_options
from edgekit.cli_places import emulators
from edgekit.cli_predict import predict
from edgekit.cli_pull import pull_samples
from edgekit.cli_verify import verify

if TYPE_CHECKING:
    from edgekit.ordering import Words
    from edgekit.outcome import Outcome

EXITS = {"passed": 0, "unbudgeted": 0, "refused": 1, "missed": 3, "inconclusive": 4}
F = TypeVar("F", bound=Callable[..., Any])


def main(words: list[str] | None = None) -> None:
    """Run the command line and exit: the one place where an error becomes a line and a code."""
    try:
        code = cli.main(args=words, prog_name="edgekit", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("stopped", "run the same again: finished steps are kept")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgeKitError as error:
        _fail(error.what, error.hint)
    except KeyboardInterrupt:
        _fail("stopped", "run the same again: finished steps are kept")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(
            f"{error.strerror}: {error.filename2 or error.filename or 'the disk'}",
            "free some space (edgekit cache clear)" if full else "choose another --out or --cache",
        )
    sys.exit(code if isinstance(code, int) else 0)


def _fail(what: str, hint: str) -> None:
    click.echo(f"error: {' '.join(what.split())}", err=True)
    if hint:
        click.echo(f"hint:  {' '.join(hint.split())}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="edgekit-toolchain", prog_name="edgekit")
def cli() -> None:
    """Take a trained model to a device: convert, quantize, prove on real data what it costs, pack.

    Exit codes: 0 done, 1 something you can mend, 2 usage, 3 the budget was missed, 4 too few samples to tell.
    """


def _model_options(command: F) -> F:
    for option in (
        click.option("--weights", metavar="FILE", help=".safetensors, or .pth loaded as weights only."),
        click.option(
            "--shape",
            multiple=True,
            metavar="NAME=DIMS[:DTYPE]",
            help="An input's shape: x=1x3x224x224, ids=batch,16:int64.",
        ),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("model", required=False)
@click.option(
    "--target", multiple=True, metavar="NAME", help="A device profile or the path of one; several are built at once."
)
@click.option(
    "--data", metavar="DATA", help="An .npz, a folder of photos, sounds or texts, a .csv of texts, or module:function."
)
@click.option("--calibration", metavar="DATA", help="Calibration data, if it is not to be split off --data.")
@click.option("--max-drop", metavar="0.5pt|1%", help="The most that may be lost; beyond it no bundle is made.")
@click.option("--max-class-drop", metavar="2pt|3%", help="The most that any class may lose.")
@click.option("--max-latency", metavar="20ms", help="The 90th percentile of the latency, where it can be measured.")
@click.option("--max-size", metavar="5MB", help="The artifact's size; then it need not be faster than float32.")
@click.option("--max-memory", metavar="200MB", help="Peak memory of a process that runs it.")
@click.option("--smaller", is_flag=True, default=None, help="Take what is smaller than float32, faster or not.")
@click.option(
    "--best", is_flag=True, default=None, help="Try every format and precision, and take what costs the least to run."
)
@click.option("--budget-time", metavar="10m", help="End the search then, with the best that was found.")
@click.option("--measure-on", metavar="ssh://user@host", help="Score and time finalists on the device.")
@_model_options
@click.option("--preprocess", metavar="FILE", help="A TOML file: how a photo, sound or text becomes the input.")
@click.option("--labels", metavar="FILE", help="A text file with a line for each class.")
@click.option("--metric", metavar="NAME", help="top1, top5, mae, cosine, agreement, or module:function.")
@click.option("--output", metavar="NAME", help="The output whose quality is judged; the first otherwise.")
@click.option("--format", metavar="NAME", help="onnx, tflite or openvino; else what the target prefers.")
@click.option("--precision", metavar="NAME", help="float32, float16, int8, int8-weights or int4-weights.")
@click.option("--min-accelerated", metavar="90%", help="The least share of the operators for the target's GPU or NPU.")
@click.option("--integer-io", is_flag=True, default=None, help="Keep integer inputs and outputs integer for the user.")
@click.option("--calibration-samples", type=int, metavar="N", help="At most so many samples calibrate (256).")
@click.option(
    "--with-float", is_flag=True, default=None, help="Carry the float artifact too, for the device to compare with."
)
@click.option(
    "--exam/--no-exam",
    default=None,
    help="Carry up to 1,024 evaluation samples, on which the device scores the model before it serves it; without a "
    "word only where this machine lacks what it runs on.",
)
@click.option("--out", metavar="FOLDER", help="The bundle's folder; with several targets the folder that they go in.")
@click.option("--name", metavar="WORD", help="The bundle's name.")
@click.option("--bundle-version", "version", metavar="WORD", help="The bundle's version (1).")
@click.option("--release", type=int, metavar="N", help="What grows from build to build (the second of the build).")
@click.option("--expires", metavar="DAY|365d", help="After that no device installs it.")
@click.option("--key", metavar="NAME", help="The key that signs it (edgekit key list).")
@click.option("--keys", metavar="FOLDER", help="Where the keys lie.")
@click.option("--unsigned", is_flag=True, default=None, help="Do not sign it; no device will install it.")
@click.option(
    "--project",
    "project_file",
    metavar="FILE",
    default="edgekit.toml",
    help="Where the words come from that no flag gives.",
)
@click.option("--cache", metavar="FOLDER", help="Where finished steps are kept.")
@click.option("--fresh", is_flag=True, help="Make every step anew.")
@click.option("--dry-run", is_flag=True, help="Print the plan and make nothing.")
@answer_options
def build(
    project_file: str, cache: str | None, fresh: bool, dry_run: bool, as_json: bool, quiet: bool, **flags: Any
) -> int:
    """Build MODEL for one target or more; without arguments, what edgekit.toml says."""
    from edgekit import keys, terminal
    from edgekit.building import build as carry_out
    from edgekit.building import prepare
    from edgekit.cache import user_cache
    from edgekit.ordering import parse_order

    order = parse_order(_words(Path(project_file), flags))
    made = not dry_run and not order.unsigned and not (order.keys / keys.TRUST).exists()
    with terminal.progress(quiet) as tell:
        if dry_run:
            prepared = prepare(order, tell)
        else:
            outcomes = carry_out(order, user_cache(cache, fresh), tell)
    if made:
        click.echo(f"made {order.keys}: main.key signs bundles, root.key vouches for it: keep that one safe", err=True)
    if dry_run:
        click.echo(json.dumps(terminal.plan_json(prepared), indent=1)) if as_json else terminal.show_plan(prepared)
        return 0
    click.echo(json.dumps([outcome.facts for outcome in outcomes], indent=1)) if as_json else terminal.show_outcomes(
        outcomes
    )
    return _exit_code(outcomes)


def _words(project: Path, flags: dict[str, Any]) -> Words:
    """What the flags say, over what the project file says."""
    from edgekit.ordering import Words, read_project

    said = {key: value for key, value in flags.items() if value not in (None, ())}
    if "model" not in said and not project.exists():
        raise EdgeKitError(
            f"no model, and no {project} here",
            hint=f"say edgekit build MODEL --target TARGET, or write {project} with edgekit init MODEL",
        )
    written = read_project(project) if project.exists() and "model" not in said else {}
    return Words(**{**written, **said})


def _exit_code(outcomes: tuple[Outcome, ...]) -> int:
    """The worst of all; errors in words on standard error."""
    for outcome in outcomes:
        if outcome.bundle is None:
            click.echo(f"error: {outcome.target}: {outcome.why}", err=True)
            click.echo(f"hint:  {outcome.hint}", err=True)
    codes = {EXITS[outcome.verdict] for outcome in outcomes}
    return next((code for code in (1, 3, 4) if code in codes), 0)


@cli.command()
@click.argument("model")
@click.option("--target", default="rpi5", metavar="NAME", show_default=True, help="What to build for.")
@click.option("--data", metavar="DATA", help="The evaluation data, if there is any.")
@_model_options
@click.option("--force", is_flag=True, help="Replace an edgekit.toml that is there.")
def init(model: str, target: str, data: str | None, weights: str | None, shape: tuple[str, ...], force: bool) -> None:
    """Write an edgekit.toml for MODEL, with a comment at every choice."""
    from edgekit import sources
    from edgekit.drafting import draft
    from edgekit.ordering import PROJECT, parse_origin
    from edgekit.target import find_target

    if Path(PROJECT).exists() and not force:
        raise EdgeKitError(f"{PROJECT} is there already", hint="say --force to replace it")
    origin = parse_origin(model, weights, shape)
    Path(PROJECT).write_text(draft(origin, sources.read(origin), find_target(target).name, data), encoding="utf-8")
    click.echo(f"wrote {PROJECT}; look it over, then say edgekit build")


cli.add_command(bench)
cli.add_command(emulators)
cli.add_command(encrypt)
cli.add_command(keys_verbs)
for verb in (flash, status, logs, rollback, devices):
    cli.add_command(verb)
cli.add_command(pack)
cli.add_command(push)
cli.add_command(pull)
cli.add_command(predict)
cli.add_command(pull_samples)
cli.add_command(verify)


@cli.group()
def targets() -> None:
    """The devices that are known, and this machine as one."""


@targets.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def targets_list(as_json: bool) -> None:
    """All known devices."""
    from edgekit.target import list_targets

    known = list_targets()
    if as_json:
        click.echo(json.dumps([target.name for target in known]))
        return
    wide = max(len(target.name) for target in known)
    for target in known:
        click.echo(f"{target.name:<{wide}}  {target.title} ({target.arch}; {', '.join(target.engines)})")


@targets.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def targets_show(name: str, as_json: bool) -> None:
    """One device: what is known of it, and where from."""
    from dataclasses import asdict

    from edgekit.target import find_target

    facts = asdict(find_target(name))
    if as_json:
        click.echo(json.dumps(facts, indent=1, default=str))
        return
    told = facts.pop("sources", {})
    for key, value in facts.items():
        if value in ((), {}, None):
            continue
        words = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        click.echo(f"{key:<14} {words}")
        if key in told:
            click.echo(f"{'':<14}   from {told[key]}")


@targets.command("detect")
def targets_detect() -> None:
    """A profile of this machine, to be kept as NAME.toml."""
    from edgekit_runtime.detect import detect, profile

    click.echo(profile(detect()), nl=False)


def _runtime(verb: str, words: tuple[str, ...]) -> int:
    from edgekit_runtime.__main__ import main as runtime

    code = runtime([verb, *words], "edgekit")
    return code if isinstance(code, int) else 0


PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


@cli.command(context_settings=PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def run(words: tuple[str, ...]) -> int:
    """Run a bundle here: BUNDLE --input photo.jpg|x.npy|x.npz [--json] [--top 5]."""
    return _runtime("run", words)


@cli.command(context_settings=PASSED_ON)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def inspect(words: tuple[str, ...]) -> int:
    """Show what a bundle is, what was proven of it and who signed it: BUNDLE [--json] [--trust FILE]."""
    from edgekit.keys import TRUST, default_home

    own = default_home() / TRUST
    return _runtime("inspect", (*(("--trust", str(own)) if own.exists() else ()), *words))


@cli.command()
@click.argument("a")
@click.argument("b")
@_model_options
@answer_options
def compare(a: str, b: str, weights: str | None, shape: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Two bundles, or a bundle and its source, side by side on the recorded inputs."""
    from edgekit import comparing, terminal

    with terminal.progress(quiet) as tell:
        left, right = (comparing.open_side(where, weights, shape, tell) for where in (a, b))
        found = comparing.compare(left, right, tell)
    click.echo(json.dumps(found, indent=1)) if as_json else terminal.show_comparison(found)


@cli.group(invoke_without_command=True)
@click.option("--cache", "root", metavar="FOLDER", help="The cache to look at.")
@click.pass_context
def cache(context: click.Context, root: str | None) -> None:
    """What finished steps, pulled content and the converters' own environments take up; `clear` removes them."""
    from edgekit.cache import user_cache
    from edgekit.isolated import environments
    from edgekit.oci.blobs import user_blobs
    from edgekit.report import megabytes

    context.obj = user_cache(root)
    if context.invoked_subcommand is not None:
        return
    for name, _, size in environments(context.obj.root):
        click.echo(f"environment {name:<16} {1:>5}  {megabytes(size):>10}")
    sizes: dict[str, list[int]] = {}
    for step, _, size, _ in context.obj.entries():
        sizes.setdefault(step, []).append(size)
    for step, found in sorted(sizes.items()):
        click.echo(f"{step:<28} {len(found):>5}  {megabytes(sum(found)):>10}")
    if (kept := user_blobs(context.obj.root).size())[0]:
        click.echo(f"{'pulled content':<28} {kept[0]:>5}  {megabytes(kept[1]):>10}")
    total = sum(map(sum, sizes.values()))
    click.echo(f"{megabytes(total)} of at most {megabytes(context.obj.limit)} in {context.obj.root}")


@cache.command("clear")
@click.option("--environments", "too", is_flag=True, help="The converters' environments too.")
@click.pass_context
def cache_clear(context: click.Context, too: bool) -> None:
    """Remove every finished step, and what was pulled."""
    from edgekit.isolated import environments, remove
    from edgekit.oci.blobs import user_blobs
    from edgekit.report import megabytes

    gone = context.obj.clear() + user_blobs(context.obj.root).clear()
    for _, folder, size in environments(context.obj.root) if too else ():
        remove(folder, click.echo)
        gone += size
    click.echo(f"removed {megabytes(gone)}")
