"""Subtract with SFFT on the CPU: ``python peer_sfft.py`` in the folder of a pair.

A program of its own, so that it can run under another interpreter than the one with Nightjar.
SFFT looks for a program called ``sex``; the caller sees to it.  Paths are absolute because it runs
that elsewhere.
"""

from pathlib import Path

from sfft.EasySparsePacket import Easy_SparsePacket


def main():
    here = Path.cwd()
    Easy_SparsePacket.ESP(
        FITS_REF=str(here / "template.fits"),
        FITS_SCI=str(here / "science.fits"),
        FITS_DIFF=str(here / "sfft.fits"),
        ForceConv="REF",
        KerPolyOrder=2,
        BGPolyOrder=0,
        GAIN_KEY="GAIN",
        SATUR_KEY="ESATUR",
        BACKEND_4SUBTRACT="Numpy",
        NUM_CPU_THREADS_4SUBTRACT=1,
        VERBOSE_LEVEL=0,
    )


if __name__ == "__main__":
    main()
