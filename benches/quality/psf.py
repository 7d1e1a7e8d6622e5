"""Point-spread functions that vary over the field, integrated over the pixels.

A PSF is a sum of elliptical Moffats (Moffat 1969) with the same shape matrix, each with a weight, a
displacement, a scale and an exponent. Widths and ellipticities are cubic polynomials of the field
position. The light that falls on a pixel is integrated with a 3x3 Gauss-Legendre rule (error below 3e-5
of the brightest pixel), with 5x5 where the PSF is narrow (FWHM 1.6 px).
"""

import numpy as np



def _rule(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return [(0.5 * u, 0.5 * v, 0.25 * a * b) for u, a in zip(nodes, weights) for v, b in zip(nodes, weights)]


WIDE, NARROW = _rule(3), _rule(5)
PIXEL_FWHM2 = 8 * np.log(2) / 12  # what the pixel's own width adds to the square of the FWHM

KINDS = ("moffat", "two-moffat", "coma")


class LocalPsf:
    """The PSF at one place of the field: unit flux in all of the plane."""

    def __init__(self, matrix, components, widest):
        self.matrix = matrix  # (xx, xy, yy) of the quadratic form
        self.components = components  # weight, dx, dy, scale of the radius, beta
        self.widest = widest  # the largest alpha, px

    def density(self, x, y):
        """Flux per square pixel at offsets (x, y) from the centre."""
        xx, xy, yy = self.matrix
        root = np.sqrt(xx * yy - xy * xy)
        total = 0.0
        for weight, dx, dy, scale, beta in self.components:
            u, v = x - dx, y - dy
            r2 = (xx * u * u + 2 * xy * u * v + yy * v * v) / scale**2
            r2 += 1.0
            norm = weight * (beta - 1) / np.pi * root / scale**2
            if beta == 3.0:
                total = total + norm / (r2 * r2 * r2)
            else:
                total = total + norm * np.exp(-beta * np.log(r2))
        return total

    def pixels(self, x, y):
        """Flux in unit pixels centred on the offsets (x, y)."""
        steepest = max(self.matrix[0], self.matrix[2]) / min(c[3] for c in self.components) ** 2
        return sum(w * self.density(x + u, y + v) for u, v, w in (NARROW if steepest > 0.5 else WIDE))

    def stamp(self, x, y, radius):
        """Corner (column, row) and pixels of a stamp around (x, y), both counted from 0."""
        left, low = int(round(x)) - radius, int(round(y)) - radius
        side = np.arange(2 * radius + 1)
        return left, low, self.pixels((left + side - x)[None, :], (low + side - y)[:, None])

    def reach(self, flux, limit):
        """Radius at which `flux` has fallen below `limit` a pixel; ten alpha hold 1 - 1e-4 of it."""
        beta = min(c[4] for c in self.components)
        a = self.widest
        far = a * (abs(flux) * (beta - 1) / (np.pi * a * a * limit)) ** (1 / (2 * beta))
        return int(np.ceil(np.clip(far, 10 * a, 220)))


class VaryingPsf:
    """A PSF over a field of `shape` (rows, columns)."""

    def __init__(self, kind, fwhm, shape, rng, variation=0.08, ellipticity=0.07):
        if kind not in KINDS:
            raise ValueError(f"no PSF {kind!r}; there are {', '.join(KINDS)}")
        self.kind, self.shape = kind, shape
        self.fwhm = np.sqrt(max(fwhm * fwhm - PIXEL_FWHM2, 0.5))
        # Polynomials of degree 3 in u, v of -1..1; the cubic terms are a tenth of the others.
        size = np.array([0, .5, .5, .5, .3, .5, .1, .1, .1, .1])
        self.width = variation * size * rng.normal(size=10)
        self.e1 = ellipticity * np.r_[.7, size[1:]] * rng.normal(size=10)
        self.e2 = ellipticity * np.r_[.7, size[1:]] * rng.normal(size=10)
        self.beta = rng.uniform(2.7, 3.6) if kind == "moffat" else 3.0
        self.tilt = rng.uniform(0, 2 * np.pi)
        self.core = self._half_width()

    def _half_width(self):
        """FWHM of the mixture for alpha = 1, so that the asked-for FWHM can be had."""
        local = LocalPsf((1, 0, 1), self._mixture(0.0, 0.0, 1.0), 1.0)
        r = np.linspace(0, 4, 8001)
        ring = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        # About the peak, averaged over angles.
        grid = np.linspace(-.6, .6, 61)
        field = local.density(grid[None, :], grid[:, None])
        py, px = np.unravel_index(np.argmax(field), field.shape)
        profile = np.mean([local.density(grid[px] + r * np.cos(t), grid[py] + r * np.sin(t)) for t in ring], axis=0)
        return 2 * r[np.argmax(profile < profile[0] / 2)]

    def _mixture(self, u, v, alpha):
        if self.kind == "moffat":
            return [(1.0, 0.0, 0.0, 1.0, self.beta)]
        if self.kind == "two-moffat":
            share = 0.25 + 0.06 * u - 0.04 * v
            return [(1 - share, 0.0, 0.0, 1.0, 4.2), (share, 0.0, 0.0, 2.1, 2.6)]
        # Coma grows from the centre outwards, trefoil turns slowly; both move light within a FWHM or so.
        coma = 0.55 * alpha * np.array([0.35 + u, 0.2 + v])
        lobe = 0.55 * alpha * (1 + 0.3 * u)
        turn = self.tilt + 0.5 * u + 0.4 * v
        parts = [(0.52, 0.0, 0.0, 1.0, 3.0)]
        parts += [(0.09, 0.6 * coma[0], 0.6 * coma[1], 1.1, 3.0), (0.06, 1.4 * coma[0], 1.4 * coma[1], 1.3, 3.0)]
        for k in range(3):
            a = turn + 2 * np.pi * k / 3
            parts.append((0.11, lobe * np.cos(a), lobe * np.sin(a), 1.0, 3.0))
        # The centre is the centroid.
        mx, my = (sum(p[0] * p[i] for p in parts) for i in (1, 2))
        return [(w, dx - mx, dy - my, s, b) for w, dx, dy, s, b in parts]

    def at(self, x, y):
        """The PSF around pixel (x, y), counted from 0."""
        rows, columns = self.shape
        u, v = 2 * x / columns - 1, 2 * y / rows - 1
        terms = np.array([1, u, v, u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3])
        alpha = self.fwhm / self.core * np.exp(terms @ self.width)
        e1, e2 = terms @ self.e1, terms @ self.e2
        e = np.hypot(e1, e2)
        if e > 0.25:
            e1, e2 = e1 * 0.25 / e, e2 * 0.25 / e
        # The shear (1 + e1, e2; e2, 1 - e1) / sqrt(1 - e^2) stretches without changing the area.
        k = 1 / np.sqrt(1 - e1 * e1 - e2 * e2)
        inverse = k * np.array([[1 - e1, -e2], [-e2, 1 + e1]]) / alpha
        form = inverse.T @ inverse
        components = self._mixture(u, v, alpha)
        widest = alpha * (1 + e) * max(c[3] for c in components)
        return LocalPsf((form[0, 0], form[0, 1], form[1, 1]), components, widest)


def turned(local, angle):
    """The PSF as seen on a grid turned by `angle`: a point p of the grid is R(angle) p of the PSF's own."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    xx, xy, yy = local.matrix
    form = turn.T @ np.array([[xx, xy], [xy, yy]]) @ turn
    parts = []
    for w, dx, dy, scale, beta in local.components:
        ox, oy = turn.T @ (dx, dy)
        parts.append((w, ox, oy, scale, beta))
    return LocalPsf((form[0, 0], form[0, 1], form[1, 1]), parts, local.widest)
