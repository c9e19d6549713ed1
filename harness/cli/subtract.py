"""``nightjar subtract``: two images in, a difference out, no workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, emit

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.standalone import Pair
    from pipeline.exposure import Difference
    from pipeline.subtract import Config

__all__ = ["subtract"]


def subtract(
    science: Annotated[
        Path, typer.Argument(metavar="SCIENCE", help="The image in which things have changed.")
    ],
    template: Annotated[Path, typer.Argument(metavar="TEMPLATE", help="The same sky, earlier.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")
    ] = Path(),
    science_variance: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Variance of the science image.")
    ] = None,
    template_variance: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Variance of the template.")
    ] = None,
    science_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mask of the science image, 0 is good.")
    ] = None,
    template_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mask of the template, 0 is good.")
    ] = None,
    science_weight: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weight (inverse variance), 0 is bad.")
    ] = None,
    template_weight: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weight of the template.")
    ] = None,
    psf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PSF of the science image: PSFEx, stamps or one stamp."),
    ] = None,
    template_psf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PSF of the template.")
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="Of which camera they are, see `nightjar camera list`, or a TOML file."),
    ] = None,
    mask_bits: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            help="Bits of the masks that count: ztf, jwst, hst, lsst, noirlab, lco, or 0,8=SAT.",
        ),
    ] = None,
    ext: Annotated[
        str | None,
        typer.Option(metavar="EXTENSION", help="Extension with the image, by number or name."),
    ] = None,
    keyword: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CARD", help="Header card to use, such as gain=EGAIN."),
    ] = None,
    gain: Annotated[
        float | None, typer.Option(min=0, help="Electrons per unit of the science image.")
    ] = None,
    template_gain: Annotated[
        float | None, typer.Option(min=0, help="Electrons per unit of the template.")
    ] = None,
    saturation: Annotated[
        float | None, typer.Option(help="Saturation level of the science image.")
    ] = None,
    template_saturation: Annotated[
        float | None, typer.Option(help="Saturation level of the template.")
    ] = None,
    convolve: Annotated[
        str, typer.Option(help="Image to convolve: auto, template or science.")
    ] = "auto",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="subtract.KEY=VALUE",
            help="Another value than the default, such as subtract.algorithm=zogy.",
        ),
    ] = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="The images are on the same pixels already.")
    ] = False,
    psf_grid: Annotated[
        bool, typer.Option("--psf-grid", help="Write psf_grid.fits, the PSF of the difference.")
    ] = False,
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Look for what has changed.")
    ] = True,
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
    from harness.standalone import (
        Planes,
        load_pair,
        make,
        misregistration,
        summary_lines,
        verdict,
        write_psf_grid,
    )
    from harness.system.memory import give_back_memory
    from pipeline import io
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
    pair = load_pair(first, second, registered=registered)
    if detect:
        pair = pair.with_template_psf()
    config = _config(convolve, overrides or [])
    give_back_memory()
    pair, difference = make(pair, config, registered=registered)
    give_back_memory()
    sources = _detect(pair, difference) if detect else None
    notes = [*pair.notes, *misregistration(pair, difference.metrics)]
    metrics = {**difference.metrics, "psfChi2": pair.psf_chi2}
    del pair  # what is left to do needs memory, not the inputs
    output.mkdir(parents=True, exist_ok=True)
    io.write_difference(output / "difference.fits", difference, compress=False)
    if sources is not None:
        io.write_parquet(output / "detections.parquet", sources)
    image = difference.exposure
    if psf_grid and image.psf is not None:
        write_psf_grid(output / "psf_grid.fits", image.psf, image.shape)
    judgement = verdict(metrics)
    counts = None if sources is None else _counts(sources)
    if as_json:
        document: dict[str, Any] = {
            "metrics": {k: v if v == v else None for k, v in metrics.items()},
            "verdict": judgement.word,
            "reasons": list(judgement.reasons),
            "notes": notes,
            "detections": counts,
        }
        emit(document)
        return
    for line in summary_lines(metrics, judgement, notes, counts):
        typer.echo(line)
    written = ["difference.fits"] + ["detections.parquet"] * detect
    typer.echo("written     " + ", ".join(str(output / name) for name in written))


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


def _detect(pair: Pair, difference: Difference) -> pa.Table:
    from pipeline import diasource

    sources = diasource.run(difference, pair.science, pair.template).sources
    unknown = [] if pair.has_wcs else [name for name in sources.column_names if _of_sky(name)]
    if pair.science.info.midpoint_mjd_tai == 0.0:
        unknown.append("midpointMjdTai")
    return _without(sources, unknown)


def _of_sky(name: str) -> bool:
    """Tell columns that need sky coordinates."""
    stem = name.lower()
    return stem in ("ra", "dec") or stem.endswith(("ra", "dec", "raerr", "decerr", "_dec_cov"))


def _without(table: pa.Table, names: list[str]) -> pa.Table:
    """Empty columns about which nothing is known."""
    import pyarrow as pa

    for name in names:
        k = table.column_names.index(name)
        field = table.schema.field(k).with_nullable(True)
        table = table.set_column(k, field, pa.nulls(len(table), field.type))
    return table


def _counts(sources: pa.Table) -> dict[str, int]:
    """Count detections by the sign of what has changed; signal-to-noise itself has none."""
    detected = ~sources["isSubThreshold"].to_numpy()
    negative = sources["isNegative"].to_numpy()[detected]
    return {"positive": int((~negative).sum()), "negative": int(negative.sum())}
