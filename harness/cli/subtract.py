"""``nightjar subtract``: two images in, a difference out, no workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, Keywords, MaskBits, emit

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.standalone import Pair
    from pipeline.exposure import Difference
    from pipeline.subtract import Config

__all__ = ["subtract"]


_Science = Annotated[
    Path, typer.Argument(metavar="SCIENCE", help="The image in which things have changed.")
]
_Template = Annotated[Path, typer.Argument(metavar="TEMPLATE", help="The same sky, earlier.")]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
]
_ScienceVariance = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Variance of the science image.")
]
_TemplateVariance = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Variance of the template.")
]
_ScienceMask = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Mask of the science image, 0 is good.")
]
_TemplateMask = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Mask of the template, 0 is good.")
]
_ScienceWeight = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weight (inverse variance), 0 is bad.")
]
_TemplateWeight = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weight of the template.")
]
_Psf = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PSF of the science image: PSFEx, stamps or one stamp."),
]
_TemplatePsf = Annotated[Path | None, typer.Option(metavar="FILE", help="PSF of the template.")]
_Camera = Annotated[
    str | None,
    typer.Option(help="Of which camera they are, see `nightjar camera list`, or a TOML file."),
]
_Ext = Annotated[
    str | None,
    typer.Option(metavar="EXTENSION", help="Extension with the image, by number or name."),
]
_Gain = Annotated[
    float | None, typer.Option(min=0, help="Electrons per unit of the science image.")
]
_TemplateGain = Annotated[
    float | None, typer.Option(min=0, help="Electrons per unit of the template.")
]
_Saturation = Annotated[float | None, typer.Option(help="Saturation level of the science image.")]
_TemplateSaturation = Annotated[
    float | None, typer.Option(help="Saturation level of the template.")
]
_Convolve = Annotated[str, typer.Option(help="Image to convolve: auto, template or science.")]
_Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="subtract.KEY=VALUE",
        help="Another value than the default, such as subtract.algorithm=zogy.",
    ),
]
_Registered = Annotated[
    bool, typer.Option("--registered", help="The images are on the same pixels already.")
]
_PsfGrid = Annotated[
    bool, typer.Option("--psf-grid", help="Write psf_grid.fits, the PSF of the difference.")
]
_Detect = Annotated[bool, typer.Option("--detect/--no-detect", help="Look for what has changed.")]


def subtract(
    science: _Science,
    template: _Template,
    output: _Output = Path(),
    science_variance: _ScienceVariance = None,
    template_variance: _TemplateVariance = None,
    science_mask: _ScienceMask = None,
    template_mask: _TemplateMask = None,
    science_weight: _ScienceWeight = None,
    template_weight: _TemplateWeight = None,
    psf: _Psf = None,
    template_psf: _TemplatePsf = None,
    camera: _Camera = None,
    mask_bits: MaskBits = None,
    ext: _Ext = None,
    keyword: Keywords = None,
    gain: _Gain = None,
    template_gain: _TemplateGain = None,
    saturation: _Saturation = None,
    template_saturation: _TemplateSaturation = None,
    convolve: _Convolve = "auto",
    overrides: _Overrides = None,
    registered: _Registered = False,
    psf_grid: _PsfGrid = False,
    detect: _Detect = True,
    as_json: Json = False,
) -> None:
    """Subtract TEMPLATE from SCIENCE and detect what has changed.

    Each image is one FITS file with extensions (IMAGE or SCI, VARIANCE, ERR or WHT, MASK, DQ or
    BPM), or a plain image with its variance or weight and mask in files of their own.  FILE[2] or
    FILE[SCI] chooses an extension.  What is missing is estimated, and the summary says so.  The
    template is resampled if its coordinates ask for it.

    Writes difference.fits and, unless --no-detect is given, detections.parquet to FOLDER.  The
    verdict on the template does not change the exit code.
    """
    from harness.standalone import Planes, load_pair
    from pipeline.io.keywords import parse_keywords

    common = {"ext": ext, "mask_bits": mask_bits, "keywords": parse_keywords(keyword or [])}
    if camera is not None:
        common = _as_camera(camera, common)
    first = Planes.of(
        science, variance=science_variance, mask=science_mask, weight=science_weight, gain=gain,
        saturation=saturation, psf=psf, **common,
    )  # fmt: skip
    second = Planes.of(
        template, variance=template_variance, mask=template_mask, weight=template_weight,
        gain=template_gain, saturation=template_saturation, psf=template_psf, **common,
    )  # fmt: skip
    _subtract(
        load_pair(first, second, registered=registered),
        _config(convolve, overrides or []),
        output,
        registered=registered,
        detect=detect,
        psf_grid=psf_grid,
        as_json=as_json,
    )


def _subtract(
    pair: Pair,
    config: Config,
    output: Path,
    *,
    registered: bool,
    detect: bool,
    psf_grid: bool,
    as_json: bool,
) -> None:
    """Make the difference of a pair, write it and print its summary."""
    from harness.standalone import detect as find
    from harness.standalone import make, misregistration
    from harness.system.memory import give_back_memory

    if detect:
        pair = pair.with_template_psf()
    give_back_memory()
    pair, difference = make(pair, config, registered=registered, detect=detect)
    give_back_memory()
    notes = [*pair.notes, *misregistration(pair, difference.metrics)]
    sources = None
    if detect:
        difference, sources = find(pair, difference)
        notes += _trails(sources)
    metrics = {**difference.metrics, **pair.judged}
    del pair  # what is left to do needs memory, not the inputs
    written = _write(output, difference, sources, psf_grid=psf_grid)
    _report(metrics, notes, sources, written, as_json=as_json)


def _write(
    output: Path, difference: Difference, sources: pa.Table | None, *, psf_grid: bool
) -> list[Path]:
    """Write the products; return the files that the summary names."""
    from harness.standalone import write_psf_grid
    from pipeline import io

    output.mkdir(parents=True, exist_ok=True)
    written = [output / "difference.fits"]
    io.write_difference(written[0], difference, compress=False)
    if sources is not None:
        written.append(output / "detections.parquet")
        io.write_parquet(written[1], sources)
    image = difference.exposure
    if psf_grid and image.psf is not None:
        write_psf_grid(output / "psf_grid.fits", image.psf, image.shape)
    return written


def _report(
    metrics: Mapping[str, float],
    notes: Sequence[str],
    sources: pa.Table | None,
    written: Sequence[Path],
    *,
    as_json: bool,
) -> None:
    """Print the numbers of the difference and the verdict on its template."""
    from harness.standalone import summary_lines, verdict

    judgement = verdict(metrics)
    counts = None if sources is None else _counts(sources)
    if as_json:
        emit(
            {
                "metrics": {k: v if v == v else None for k, v in metrics.items()},
                "verdict": judgement.word,
                "reasons": list(judgement.reasons),
                "notes": notes,
                "detections": counts,
            }
        )
        return
    for line in summary_lines(metrics, judgement, notes, counts):
        typer.echo(line)
    typer.echo("written     " + ", ".join(str(path) for path in written))


def _as_camera(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Complete what is given of a file by what its camera usually has."""
    from pipeline.camera import Camera
    from pipeline.errors import ConfigError

    known = Camera.load(name)
    if not known.plain:
        raise ConfigError(
            f"camera {name!r} has raw frames", key="--camera", expected="reduced ones"
        )
    return {
        "ext": given["ext"] or known.extension or None,
        "mask_bits": given["mask_bits"] or known.mask_bits or None,
        "keywords": {**known.keywords, **given["keywords"]},
    }


def _config(convolve: str, overrides: list[str]) -> Config:
    from harness.settings import Settings
    from pipeline.errors import ConfigError

    for text in overrides:
        if not text.strip().startswith("subtract."):
            raise ConfigError("cannot be used", key=text, expected="subtract.KEY=VALUE")
    return Settings.defaults([f'subtract.convolve="{convolve}"', *overrides]).subtract


def _trails(sources: pa.Table) -> list[str]:
    """Say how many detections are pieces of satellite trails."""
    pieces = int((sources["isStreak"].to_numpy() & ~sources["isSubThreshold"].to_numpy()).sum())
    return [f"satellite trail: {pieces} detections on it, isStreak"] if pieces else []


def _counts(sources: pa.Table) -> dict[str, int]:
    """Count detections by the sign of what has changed; signal-to-noise itself has none."""
    detected = ~sources["isSubThreshold"].to_numpy()
    negative = sources["isNegative"].to_numpy()[detected]
    return {"positive": int((~negative).sum()), "negative": int(negative.sum())}
