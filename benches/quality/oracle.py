#!/usr/bin/env python3
"""Checks a scene of scenes.py against what its truth says, with code that did not draw it.

    oracle.py SCENE...           apertures, places, noise
    oracle.py --pulls SCENE...   what the matched filter with the true PSFs gets on the frames

Measured: the flux and the place of bright stars by apertures and by moments, the noise of the empty
sky; with --pulls the flux of every change by the ideal filter on the pixels as written, whose scatter
about the truth must be the error that the truth states. Any figure off by more than it may be ends the
program with exit code 1.
"""

import csv
import json
import pathlib
import sys

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.spatial import cKDTree


def table(path):
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return {k: np.array([r[k] for r in rows]) for k in rows[0]} if rows else {}


def check(name, value, low, high):
    good = low <= value <= high
    print(f"  {'ok ' if good else 'BAD'} {name}: {value:.5f} (wanted {low:.4g} to {high:.4g})")
    return good


def apertures(pixels, x, y, radius, sky_radius):
    """Sum within `radius` of (x, y) less the median of the ring beyond, and the centroid, 10x oversampled."""
    r = int(sky_radius) + 2
    left, low = int(round(x)) - r, int(round(y)) - r
    cut = pixels[low:low + 2 * r + 1, left:left + 2 * r + 1]
    if cut.shape != (2 * r + 1, 2 * r + 1):
        return None
    fine = (np.arange(10 * (2 * r + 1)) + 0.5) / 10 - 0.5
    fx, fy = fine[None, :] + left - x, fine[:, None] + low - y
    part = (np.hypot(fx, fy) < radius).reshape(2 * r + 1, 10, 2 * r + 1, 10).mean((1, 3))
    gy, gx = np.mgrid[low:low + 2 * r + 1, left:left + 2 * r + 1]
    ring = (np.hypot(gx - x, gy - y) > sky_radius - 4) & (np.hypot(gx - x, gy - y) < sky_radius)
    net = cut - np.median(cut[ring])
    flux = float(np.sum(part * net))
    core = np.clip(5.5 - np.hypot(gx - x, gy - y), 0, 1) * net
    return flux, float(np.sum(core * gx) / core.sum()) - x, float(np.sum(core * gy) / core.sum()) - y


def examine(folder):
    folder = pathlib.Path(folder)
    about = json.loads((folder / "scene.json").read_text())
    stars, truth = table(folder / "stars.csv"), table(folder / "truth.csv")
    science, reference = fits.getdata(folder / "science.fits").astype(float), fits.getdata(folder / "reference.fits").astype(float)
    head, reference_head = fits.getheader(folder / "science.fits"), fits.getheader(folder / "reference.fits")
    marks = fits.getdata(folder / "defects.fits.gz")
    print(folder)
    x, y, flux, mag = (stars[k].astype(float) for k in ("x", "y", "flux", "mag"))
    variable = stars["variable"] == "1"
    tree = cKDTree(np.c_[x, y])
    good = []
    # Stars with nothing within 25 px that has 1/1000 of their light.
    chosen = []
    for k in np.nonzero((mag > about["saturation_mag"] + 0.1) & (mag < about["saturation_mag"] + 3) & ~variable)[0]:
        if not (40 < x[k] < science.shape[1] - 40 and 40 < y[k] < science.shape[0] - 40):
            continue
        near = [j for j in tree.query_ball_point((x[k], y[k]), 26) if j != k]
        cut = marks[int(y[k]) - 22:int(y[k]) + 21, int(x[k]) - 22:int(x[k]) + 21]
        if not cut.any() and all(flux[j] < 0.0015 * flux[k] for j in near):
            chosen.append(k)
    unit = 10 ** (0.4 * (reference_head["MAGZP"] - about["zero_point"]))
    w_ref = WCS(reference_head)
    w_sci = WCS(head)
    found, ref_found, moved = [], [], []
    ra, dec = None, None
    for k in chosen:
        a = apertures(science, x[k] - 1, y[k] - 1, 18, 26)
        if a:
            found.append((a[0] / flux[k], a[1], a[2]))
        # The reference through its own header; the science header is only good to its distortion.
        (ra, dec) = w_sci.all_pix2world(x[k], y[k], 1)
        rx, ry = w_ref.all_world2pix(ra, dec, 1)
        if 45 < rx < science.shape[1] - 45 and 45 < ry < science.shape[0] - 45:
            b = apertures(reference, float(rx) - 1, float(ry) - 1, 18, 26)
            if b:
                ref_found.append(b[0] / flux[k] / unit)
                moved.append((b[1], b[2]))
    found, moved = np.array(found), np.array(moved)
    print(f"  {len(chosen)} isolated bright stars")
    good.append(check("flux of stars, aperture / truth", np.median(found[:, 0]), 0.995, 1.005))
    wanted = np.sqrt(flux[chosen[:len(found)]] + np.pi * 18**2 * about["noise"] ** 2) / flux[chosen[:len(found)]]
    pull = (found[:, 0] - np.median(found[:, 0])) / wanted
    good.append(check("scatter of that / photon noise of the star and its disc (neighbours are in it)", 1.4826 * np.median(abs(pull)), 0.7, 4))
    good.append(check("centroid - truth in x, px", np.median(found[:, 1]), -0.01, 0.01))
    good.append(check("centroid - truth in y, px", np.median(found[:, 2]), -0.01, 0.01))
    good.append(check("flux of stars in the reference", np.median(ref_found), 0.995, 1.005))
    limit = 0.1 + about["distortion"] + about["wcs_error"] / 1.01
    good.append(check("reference's place through both headers, px", np.median(np.hypot(*moved.T)), 0, limit))
    # Noise: differences of neighbours in boxes of sky.
    for name, image, wanted in (("science", science, about["noise"]), ("reference", reference, about["reference_noise"] * unit)):
        step = image[:, 1:] - image[:, :-1]
        block = step[: step.shape[0] // 64 * 64, : step.shape[1] // 64 * 64].reshape(-1, 64, step.shape[1] // 64, 64)
        sigma = 1.4826 * np.median(abs(block - np.median(block, (1, 3))[:, None, :, None]), (1, 3)) / np.sqrt(2)
        good.append(check(f"noise of the {name} / stated", np.percentile(sigma, 30) / wanted, 0.97, 1.06))
    snr, scored = truth.get("snr", np.array([])).astype(float), truth.get("scored", np.array([])) == "1"
    if snr.size:
        edges = [3, 5, 7, 10, 20, 50, 100, 1e9]
        counts = np.histogram(snr[scored], edges)[0]
        print("  scored changes by S/N " + ", ".join(f"{a}+: {n}" for a, n in zip(edges, counts)) + f"; all {scored.sum()}")
        kinds, n = np.unique(truth["kind"], return_counts=True)
        print("  " + ", ".join(f"{k} {c}" for k, c in zip(kinds, n)))
    return all(good)


def pulls(folder):
    """(measured - true) / stated error with the true kernels, over all scored changes."""
    import scenes

    folder = pathlib.Path(folder)
    about, truth = json.loads((folder / "scene.json").read_text()), table(folder / "truth.csv")
    words = [str(folder)]
    for name in ("seed", "size", "stars", "faint", "galaxies", "changes", "trails", "psf", "fwhm", "reference_fwhm",
                 "angle", "shift", "distortion", "wcs_error", "sky", "gradient", "depth", "reference_scale",
                 "min_amplitude"):
        words += [f"--{name.replace('_', '-')}={about[name]}"]
    scene = scenes.Scene(scenes.arguments(words), draw=False)
    science, reference = fits.getdata(folder / "science.fits").astype(float), fits.getdata(folder / "reference.fits").astype(float)
    unit = 10 ** (0.4 * (fits.getheader(folder / "reference.fits")["MAGZP"] - about["zero_point"]))
    reference /= unit
    side = scene.ideal.side
    out = []
    for k in np.nonzero((truth["scored"] == "1"))[0]:
        x, y, flux, error = (float(truth[c][k]) for c in ("x", "y", "flux", "error"))
        x, y = x - 1, y - 1
        if min(x, y, science.shape[1] - x, science.shape[0] - y) < 50:
            continue
        kn, kr = scene.ideal.flux_weights(x, y)
        # The science frame is taken as it is: its weights move by the fraction of a pixel.
        i, j = int(round(x)), int(round(y))
        wave = -2j * np.pi * np.fft.fftfreq(len(side))
        kn = np.fft.ifft2(np.fft.fft2(kn) * np.exp(wave[None, :] * (x - i)) * np.exp(wave[:, None] * (y - j))).real
        # At FWHM 2 px the moved weights miss 0.1 to 0.2 % of a source: aliasing.
        gain = np.sum(kn * scene.psf.at(x, y).pixels((i + side - x)[None, :], (j + side - y)[:, None]))
        n = science[j + side[0]:j + side[-1] + 1, i + side[0]:i + side[-1] + 1]
        rows, columns = np.meshgrid(y + side, x + side, indexing="ij")
        r = at(reference, *scene.geometry.to_reference(columns, rows))
        net = (np.sum(kn * (n - np.median(n))) - np.sum(kr * (r - np.median(r)))) / gain
        out.append((net - flux, error, flux, float(truth["snr"][k]), float(truth["base_flux"][k])))
    d, e, f, s, base = np.array(out).T
    pull = d / e
    print(folder)
    good = []
    for name, inside in (("S/N 3-7", s < 7), ("7-20", (s >= 7) & (s < 20)), ("20-100", (s >= 20) & (s < 100))):
        p = pull[inside]
        slack = max(0.12, 3.5 * 1.17 / np.sqrt(2 * p.size))  # of a robust deviation of so many
        good.append(check(f"pull, robust sigma, {name} ({p.size})", 1.4826 * np.median(abs(p - np.median(p))), 1 - slack, 1 + slack))
        slack = max(0.15, 3.5 * 1.25 / np.sqrt(p.size))
        good.append(check(f"pull, median along the sign, {name}", np.median(p * np.sign(f[inside])), -slack, slack))
    bright = s >= 50
    good.append(check(f"flux at S/N >= 50 / true ({bright.sum()})", 1 + np.median(d[bright] / f[bright]), 0.997, 1.003))
    return all(good)


def at(image, x, y):
    """Quintic interpolation within a cut-out."""
    from scipy.ndimage import map_coordinates

    left, low = max(int(x.min()) - 6, 0), max(int(y.min()) - 6, 0)
    cut = image[low:int(y.max()) + 7, left:int(x.max()) + 7]
    return map_coordinates(cut, (y - low, x - left), order=5, mode="nearest")


if __name__ == "__main__":
    words = sys.argv[1:]
    judge = examine
    if words and words[0] == "--pulls":
        words, judge = words[1:], pulls
    sys.exit(0 if all([judge(folder) for folder in words]) else 1)
