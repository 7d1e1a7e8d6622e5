"""What is on the sky: stars, galaxies, and what changed between reference and science frame."""

import numpy as np

ZERO_POINT = 28.3  # magnitude of one electron of the science frame
MARGIN = 90  # px beyond the frame in which objects are made too


def flux_of(mag):
    return 10 ** (0.4 * (ZERO_POINT - mag))


def mag_of(flux):
    return ZERO_POINT - 2.5 * np.log10(np.maximum(flux, 1e-3))


class Catalogue:
    """Stars and galaxies, as seen in the reference, with science pixel positions counted from 0."""

    def __init__(self, shape, n_stars, n_galaxies, rng, faint=21.5, bright=10.0, slope=0.28):
        rows, columns = shape
        area = (rows + 2 * MARGIN) * (columns + 2 * MARGIN) / (rows * columns)
        n = int(round(n_stars * area))
        self.x = rng.uniform(-MARGIN, columns - 1 + MARGIN, n)
        self.y = rng.uniform(-MARGIN, rows - 1 + MARGIN, n)
        # dN/dm grows as 10^(slope m) between the limits.
        t = rng.uniform(size=n)
        lo, hi = 10 ** (slope * bright), 10 ** (slope * faint)
        self.flux = flux_of(np.log10(lo + t * (hi - lo)) / slope)
        g = int(round(n_galaxies * area))
        self.gx = rng.uniform(-MARGIN, columns - 1 + MARGIN, g)
        self.gy = rng.uniform(-MARGIN, rows - 1 + MARGIN, g)
        t = rng.uniform(size=g)
        lo, hi = 10 ** (0.4 * 15.5), 10 ** (0.4 * 21.2)
        gmag = np.log10(lo + t * (hi - lo)) / 0.4
        self.gflux = flux_of(gmag)
        # Exponential scale length, px: brighter ones are larger.
        self.gsize = np.clip(1.5 * 10 ** (-0.12 * (gmag - 19.5)) * rng.lognormal(0, 0.35, g), 0.4, 6.0)
        self.gratio = rng.uniform(0.25, 1.0, g)
        self.gangle = rng.uniform(0, np.pi, g)
        self.gbulge = rng.uniform(0, 0.5, g)


def wanted_snr(rng, n):
    """True S/N asked for: enough about the threshold, the rest up to 700."""
    edges = np.array([3.0, 5.0, 7.0, 10.0, 20.0, 60.0, 180.0, 700.0])
    shares = np.array([0.12, 0.18, 0.18, 0.18, 0.065, 0.14, 0.135])
    k = rng.choice(len(shares), size=n, p=shares / shares.sum())
    return np.exp(rng.uniform(np.log(edges[k]), np.log(edges[k + 1])))


class Changes:
    """Rows of what changed: dictionaries, in the order in which they were made."""

    def __init__(self, shape, clear_of):
        self.rows, self.shape, self.clear_of = [], shape, clear_of

    def place(self, x, y, edge=24.0, apart=11.0):
        """Whether a change may be here: inside, on both frames, and apart from others and from defects."""
        height, width = self.shape
        if not (edge <= x <= width - 1 - edge and edge <= y <= height - 1 - edge):
            return False
        if any((row["x"] - x) ** 2 + (row["y"] - y) ** 2 < apart**2 for row in self.rows):
            return False
        return self.clear_of(x, y)

    def add(self, kind, x, y, flux, **more):
        row = dict(kind=kind, x=x, y=y, flux=flux, base_flux=0.0, base_mag=np.nan, galaxy=-1, star=-1, length=0.0, angle=0.0)
        row.update(more)
        self.rows.append(row)


def make_changes(catalogue, count, error_of, changes, rng, trails=12, saturation=np.inf, min_amplitude=0.02):
    """Fills `changes`: 45 % variable stars, 25 % new on blank sky, 20 % on galaxies, 10 % fading.

    `error_of(x, y, base, flux)` is the ideal error of a change of `flux` on a star of `base` electrons.
    A variable star changes by at least `min_amplitude` of its light.
    """
    _variables(catalogue, int(count * 0.45), error_of, changes, rng, saturation, min_amplitude)
    stars = np.c_[catalogue.x, catalogue.y]
    bright = catalogue.flux > 2000
    _sources(catalogue, int(count * 0.25), error_of, changes, rng, stars[bright], "new", 1.0)
    _in_galaxies(catalogue, int(count * 0.15), error_of, changes, rng, "host", 1.0)
    _sources(catalogue, int(count * 0.10), error_of, changes, rng, stars[bright], "gone", -1.0)
    _in_galaxies(catalogue, int(count * 0.05), error_of, changes, rng, "host-gone", -1.0)
    _trails(trails, error_of, changes, rng)
    return changes.rows


def _variables(catalogue, count, error_of, changes, rng, saturation, min_amplitude):
    height, width = changes.shape
    usable = (catalogue.flux < saturation) & (catalogue.x > 0) & (catalogue.x < width) & (catalogue.y > 0) & (catalogue.y < height)
    at = np.nonzero(usable)[0]
    if at.size == 0:
        return
    count = min(count, int(0.4 * at.size))
    weight = catalogue.flux[at] ** 0.2
    order = rng.choice(at, size=min(at.size, 3 * count), replace=False, p=weight / weight.sum())
    snrs = iter(wanted_snr(rng, order.size))
    made = 0
    for star in order:
        if made == count:
            break
        x, y, base = catalogue.x[star], catalogue.y[star], catalogue.flux[star]
        snr, sign = next(snrs), rng.choice([-1.0, 1.0])
        if not changes.place(x, y):
            continue
        flux = sign * snr * error_of(x, y, base, 0.0)
        flux = sign * snr * error_of(x, y, base, flux)
        if abs(flux) < min_amplitude * base:
            flux = sign * base * np.exp(rng.uniform(np.log(min_amplitude), np.log(0.3)))
        if flux < -0.85 * base:
            flux = -flux
        if base + flux > saturation:
            flux = -abs(flux)
            if flux < -0.85 * base:
                continue
        changes.add("variable", x, y, flux, base_flux=base, star=int(star))
        made += 1


def _sources(catalogue, count, error_of, changes, rng, bright, kind, sign):
    from scipy.spatial import cKDTree

    height, width = changes.shape
    tree = cKDTree(bright) if len(bright) else None
    for snr in wanted_snr(rng, count):
        for _ in range(200):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            if tree is not None and tree.query((x, y))[0] < 5.0:
                continue
            if changes.place(x, y):
                flux = snr * error_of(x, y, 0.0, 0.0)
                changes.add(kind, x, y, sign * snr * error_of(x, y, 0.0, flux))
                break


def _in_galaxies(catalogue, count, error_of, changes, rng, kind, sign):
    height, width = changes.shape
    hosts = np.nonzero((catalogue.gx > 30) & (catalogue.gx < width - 30) & (catalogue.gy > 30) & (catalogue.gy < height - 30))[0]
    if hosts.size == 0:
        return
    chosen = rng.choice(hosts, size=min(count, hosts.size), replace=False)
    for host, snr in zip(chosen, wanted_snr(rng, chosen.size)):
        nuclear = rng.uniform() < 0.2
        far = 0.0 if nuclear else catalogue.gsize[host] * rng.uniform(0.2, 2.5)
        turn = rng.uniform(0, 2 * np.pi)
        x, y = catalogue.gx[host] + far * np.cos(turn), catalogue.gy[host] + far * np.sin(turn)
        if changes.place(x, y):
            # The galaxy's own light is in the truth's S/N afterwards; here a third of it stands in.
            base = 0.3 * catalogue.gflux[host] * np.exp(-far / catalogue.gsize[host])
            changes.add(kind, x, y, sign * snr * error_of(x, y, base, 0.0), galaxy=int(host))


def _trails(count, error_of, changes, rng):
    height, width = changes.shape
    for snr, length in zip(np.exp(rng.uniform(np.log(12), np.log(120), count)), rng.uniform(4, 30, count)):
        for _ in range(200):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            if changes.place(x, y, edge=40.0, apart=30.0):
                flux = snr * error_of(x, y, 0.0, 0.0) * np.sqrt(1 + length / 4)
                changes.add("trail", x, y, flux, length=length, angle=rng.uniform(0, np.pi))
                break
