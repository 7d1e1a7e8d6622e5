"""Draws stars, galaxies and trails into an image of expected electrons."""

import numpy as np


class Canvas:
    """Expected electrons of one frame, without sky."""

    def __init__(self, shape, psf, sky_noise):
        self.image = np.zeros(shape)
        self.psf, self.limit = psf, 0.002 * sky_noise

    def _add(self, left, low, stamp):
        rows, columns = self.image.shape
        height, width = stamp.shape
        x0, y0 = max(left, 0), max(low, 0)
        x1, y1 = min(left + width, columns), min(low + height, rows)
        if x0 < x1 and y0 < y1:
            self.image[y0:y1, x0:x1] += stamp[y0 - low:y1 - low, x0 - left:x1 - left]

    def star(self, x, y, flux):
        """A point source."""
        local = self.psf.at(x, y)
        left, low, stamp = local.stamp(x, y, local.reach(flux, self.limit))
        self._add(left, low, flux * stamp)

    def trail(self, x, y, flux, length, angle):
        """A source that moves evenly over `length` px during the exposure."""
        steps = max(int(np.ceil(length / 0.25)), 2)
        along = (np.arange(steps) + 0.5) / steps - 0.5
        for t in along * length:
            self.star(x + t * np.cos(angle), y + t * np.sin(angle), flux / steps)

    def galaxy(self, x, y, flux, size, ratio, angle, bulge):
        """An exponential disc and a smaller, rounder bulge, through the PSF.

        Both are multiplied in Fourier space, where an exponential disc is (1 + k^2)^(-3/2), on a grid
        of half pixels; the tails beyond the stamp hold less than 1e-3 of the light.
        """
        half = 32 if size < 3.0 else 64
        left, low = int(round(x)) - half, int(round(y)) - half
        n = 4 * half
        local = self.psf.at(x, y)
        side = (np.arange(n) - n // 2) / 2.0
        grid = local.pixels(side[None, :], side[:, None])
        kx, ky = 2 * np.pi * np.fft.rfftfreq(n, 0.5)[None, :], 2 * np.pi * np.fft.fftfreq(n, 0.5)[:, None]
        c, s = np.cos(angle), np.sin(angle)
        major, minor = c * kx + s * ky, -s * kx + c * ky

        def disc(scale, q):
            return (1 + scale**2 * (major**2 + (q * minor) ** 2)) ** -1.5

        light = (1 - bulge) * disc(size, ratio) + bulge * disc(0.3 * size, 0.5 + 0.5 * ratio)
        # The stamp's pixel 0 is at `left`; the PSF's centre is at index n/2 of the half-pixel grid.
        dx, dy = x - left - half, y - low - half
        shift = np.exp(-1j * (kx * dx + ky * dy))
        blurred = np.fft.irfft2(np.fft.rfft2(grid) * light * shift, s=(n, n))
        self._add(left, low, flux * blurred[::2, ::2])


def smooth_sky(shape, level, gradient, rng):
    """A sky with a gradient and a little curvature, `gradient` from edge to edge as a part of the level."""
    rows, columns = shape
    u, v = np.linspace(-1, 1, columns)[None, :], np.linspace(-1, 1, rows)[:, None]
    a = rng.normal(size=5)
    a /= np.abs(a).sum()
    return level * (1 + gradient * (a[0] * u + a[1] * v + 0.4 * (a[2] * u * u + a[3] * u * v + a[4] * v * v)))
