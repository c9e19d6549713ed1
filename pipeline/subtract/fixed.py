"""A subtraction with fixed kernel and noise: what comes out is linear in the images."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.exposure import Difference, Exposure
from pipeline.subtract.alard_lupton import Solution, solve, subtract_again
from pipeline.subtract.config import Config
from pipeline.subtract.run import fine_tiles

__all__ = ["FixedSubtraction"]


@dataclass(frozen=True, slots=True, eq=False)
class FixedSubtraction:
    """What `pipeline.subtract.run` found about a pair of images, for the same pair with sources.

    Attributes
    ----------
    solution : Solution
        Kernel, levels and noise.
    config : Config
        With which they were found.
    """

    solution: Solution
    config: Config

    @classmethod
    def of(
        cls, science: Exposure, template: Exposure, config: Config | None = None
    ) -> FixedSubtraction:
        """Find kernel and noise of a pair.

        Parameters
        ----------
        science, template : Exposure
            As for `pipeline.subtract.run`.
        config : Config, optional
            As for `pipeline.subtract.run`.

        Returns
        -------
        FixedSubtraction
            Of this pair.

        Raises
        ------
        ConfigError
            For another algorithm than Alard–Lupton, which has no fixed kernel.
        """
        config = fine_tiles(config or Config(), science.shape)
        if config.algorithm != "alard_lupton":
            raise ConfigError(
                f"{config.algorithm} has no kernel that could be fixed",
                key="subtract.algorithm", expected="alard_lupton",
            )  # fmt: skip
        return cls(solve(science, template, config)[1], config)

    def run(self, science: Exposure, template: Exposure) -> Difference:
        """Subtract the pair with sources in it.

        Parameters
        ----------
        science, template : Exposure
            The images of `of`, with sources added.

        Returns
        -------
        Difference
            That of the pair without them, plus the sources.
        """
        return subtract_again(science, template, self.solution, self.config)
