"""The ideal signal-to-noise of a change, from the true PSFs and the true expected electrons.

Zackay, Ofek and Gal-Yam 2016, ApJ 830, 27: the flux of the matched filter on the proper difference is
alpha = S / F_S, and its variance is that of S with the noise of each pixel (equations 25 to 31), the
photons of the source itself and of what it stands on included.
"""

import numpy as np
from scipy.ndimage import map_coordinates

from psf import turned

SIDE = 64


class Ideal:
    """Errors of changes between two frames.

    `noise` and `reference_noise`: standard deviation of the empty sky in the units of the science
    frame; `per_electron` and its twin: variance that one electron of a source adds.
    """

    def __init__(self, psf, reference_psf, geometry, noise, reference_noise, per_electron_reference):
        self.psf, self.reference_psf, self.geometry = psf, reference_psf, geometry
        self.noise, self.reference_noise = noise, reference_noise
        self.per_electron_reference = per_electron_reference
        self.side = np.arange(SIDE) - SIDE // 2

    def _filters(self, x, y):
        rx, ry = self.geometry.to_reference(x, y)
        side = self.side
        pn = self.psf.at(x, y).pixels(side[None, :], side[:, None])
        pr = turned(self.reference_psf.at(rx, ry), self.geometry.angle).pixels(side[None, :], side[:, None])
        n, r = np.fft.fft2(np.fft.ifftshift(pn)), np.fft.fft2(np.fft.ifftshift(pr))
        den = self.noise**2 * abs(r) ** 2 + self.reference_noise**2 * abs(n) ** 2 + 1e-12 * self.noise**2
        strength = np.mean(abs(n) ** 2 * abs(r) ** 2 / den)
        kr, kn = np.conj(r) * abs(n) ** 2 / den, np.conj(n) * abs(r) ** 2 / den
        return pn, pr, kn, kr, strength, abs(n) ** 2 * abs(r) ** 2 / den

    @staticmethod
    def _weights(kernel):
        """Weights of the pixels about a change. S correlates: offset d is weighted with the kernel at -d."""
        k = np.fft.fftshift(np.fft.ifft2(kernel).real)
        return np.roll(k[::-1, ::-1], (1, 1), (0, 1))

    def star_error(self, x, y, base, flux):
        """Error of a change of `flux` on a star of `base` electrons on empty sky."""
        pn, pr, kn, kr, strength, _ = self._filters(x, y)
        v_n = self.noise**2 + np.maximum(base + flux, 0) * pn
        v_r = self.reference_noise**2 + self.per_electron_reference * max(base, -flux) * pr
        return float(np.sqrt(np.sum(self._weights(kn) ** 2 * v_n) + np.sum(self._weights(kr) ** 2 * v_r)) / strength)

    def flux_weights(self, x, y):
        """Weights of the pixels of the two frames that give the flux of a change at (x, y)."""
        _, _, kn, kr, strength, _ = self._filters(x, y)
        return self._weights(kn) / strength, self._weights(kr) / strength

    def errors(self, x, y, flux, variance, reference_variance):
        """Errors of flux, x and y of a change, with the true variance of every pixel of the two frames.

        The place is where the slope of S vanishes: dx = (dS/dx) / (flux * the curvature of S).
        """
        _, _, kn, kr, strength, power = self._filters(x, y)
        rows, columns = np.meshgrid(y + self.side, x + self.side, indexing="ij")
        v_n = _interpolated(variance, columns, rows)
        v_r = _interpolated(reference_variance, *self.geometry.to_reference(columns, rows))

        def noise(slope):
            return np.sqrt(np.sum(self._weights(slope * kn) ** 2 * v_n) + np.sum(self._weights(slope * kr) ** 2 * v_r))

        k = 2 * np.pi * np.fft.fftfreq(SIDE)
        out = [noise(1.0) / strength]
        for wave in (k[None, :], k[:, None]):
            out.append(noise(1j * wave) / (abs(flux) * np.mean(wave**2 * power)))
        return [float(v) for v in out]


def _interpolated(image, x, y):
    """Cubic interpolation within a cut-out; the border's value beyond the border."""
    left, low = max(int(x.min()) - 3, 0), max(int(y.min()) - 3, 0)
    cut = image[low:int(y.max()) + 5, left:int(x.max()) + 5]
    value = map_coordinates(cut, (y - low, x - left), order=3, mode="nearest")
    return np.clip(value, cut.min(), cut.max())
