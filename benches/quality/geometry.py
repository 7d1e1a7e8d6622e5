"""Where a point of the science frame lies on the reference and on the sky.

The reference is an exact gnomonic projection (TAN). The science frame is turned and shifted, and the
optics distort it by a fraction of a pixel that its header does not tell.
Pixels are counted from 0 at the centre of the first.
"""

import numpy as np
from astropy.io import fits

SCALE = 1.01 / 3600  # degrees a pixel


class Geometry:
    """Science frame against reference."""

    def __init__(self, shape, angle_deg, shift, distortion, rng, wcs_error_arcsec=0.0):
        rows, columns = shape
        self.shape = shape
        self.centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
        self.angle = np.deg2rad(angle_deg)
        c, s = np.cos(self.angle), np.sin(self.angle)
        self.turn = np.array([[c, -s], [s, c]])
        self.shift = np.asarray(shift, float)
        self.distortion = distortion
        self.skew = rng.normal(size=(2, 3)) * 0.3
        self.pole = (150.0 + rng.uniform(-20, 20), 30.0 + rng.uniform(-15, 15))
        self.plane = SCALE * np.array([[-1.0, 0.0], [0.0, 1.0]])
        direction = rng.uniform(0, 2 * np.pi)
        self.error = wcs_error_arcsec / 3600 * np.array([np.cos(direction), np.sin(direction)])

    def to_reference(self, x, y):
        """Reference pixel of science pixel (x, y)."""
        u = (np.asarray(x, float) - self.centre[0]) / self.centre[0]
        v = (np.asarray(y, float) - self.centre[1]) / self.centre[1]
        r2 = (u * u + v * v) / 2
        a, b = self.skew
        qx = x + self.distortion * (r2 * u + a[0] * u * u + a[1] * u * v + a[2] * v * v)
        qy = y + self.distortion * (r2 * v + b[0] * u * u + b[1] * u * v + b[2] * v * v)
        dx, dy = qx - self.centre[0], qy - self.centre[1]
        t = self.turn
        return (t[0, 0] * dx + t[0, 1] * dy + self.centre[0] + self.shift[0],
                t[1, 0] * dx + t[1, 1] * dy + self.centre[1] + self.shift[1])

    def sky(self, x, y):
        """Right ascension and declination (degrees) of science pixel (x, y)."""
        rx, ry = self.to_reference(x, y)
        xi = np.deg2rad(self.plane[0, 0] * (rx - self.centre[0]))
        eta = np.deg2rad(self.plane[1, 1] * (ry - self.centre[1]))
        ra0, dec0 = np.deg2rad(self.pole)
        below = np.cos(dec0) - eta * np.sin(dec0)
        ra = ra0 + np.arctan2(xi, below)
        dec = np.arctan2((np.sin(dec0) + eta * np.cos(dec0)) * np.cos(ra - ra0), below)
        return np.rad2deg(ra) % 360, np.rad2deg(dec)

    def _header(self, origin, matrix, pole):
        header = fits.Header()
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
        header["CRVAL1"], header["CRVAL2"] = pole
        header["CRPIX1"], header["CRPIX2"] = origin[0] + 1, origin[1] + 1
        header["CD1_1"], header["CD1_2"] = matrix[0]
        header["CD2_1"], header["CD2_2"] = matrix[1]
        header["RADESYS"], header["EQUINOX"] = "ICRS", 2000.0
        return header

    def reference_header(self):
        """The WCS of the reference: exact."""
        return self._header(self.centre, self.plane, self.pole)

    def science_header(self):
        """The WCS of the science frame: exact up to the distortion and the asked-for error."""
        origin = self.centre - self.turn.T @ self.shift
        pole = (self.pole[0] + self.error[0] / np.cos(np.deg2rad(self.pole[1])), self.pole[1] + self.error[1])
        return self._header(origin, self.plane @ self.turn, pole)
