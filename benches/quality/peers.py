#!/usr/bin/env python3
"""The programs that others use for the same work, on the same frames.

    peers.py time SCIENCE REFERENCE [--json FILE] [--rounds N]
        seconds of SWarp (reference onto the science grid) and of two runs of source-extractor (one a
        sign) on the difference: what `make bench` puts beside register + subtract + detect
    peers.py run METHOD SCENE OUT
        one method on one scene of scenes.py; leaves OUT/candidates.csv for score.py and
        OUT/seconds.json; METHOD is sfft-sep, sfft-sextractor or swarp-sextractor
    peers.py cosmic-rays SCENE
        astroscrappy on the science frame: seconds, the part of the cosmic rays' pixels that it
        finds, and the stars that it damages

SWarp and source-extractor are Debian's packages, sfft, sep and astroscrappy PyPI's. hotpants, which
surveys use, is neither in Debian 12 nor 13 nor on PyPI, so it is not measured here.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from astropy.io import fits

MIN_SNR = 5.0
SWARP = {
    "SUBTRACT_BACK": "N", "RESAMPLING_TYPE": "LANCZOS3", "FSCALASTRO_TYPE": "NONE", "FSCALE_KEYWORD": "NONE",
    "COMBINE_TYPE": "AVERAGE", "WEIGHT_TYPE": "NONE", "VERBOSE_TYPE": "QUIET", "WRITE_XML": "N", "NTHREADS": "2",
    "COPY_KEYWORDS": "GAIN,SATURATE,MAGZP", "DELETE_TMPFILES": "Y",
}
SEXTRACTOR = {
    "FILTER": "Y", "DETECT_TYPE": "CCD", "BACK_SIZE": "64", "DEBLEND_MINCONT": "0.005", "CLEAN": "Y",
    "VERBOSE_TYPE": "QUIET", "CATALOG_TYPE": "ASCII_HEAD", "WRITE_XML": "N", "DETECT_MINAREA": "3",
    "DETECT_THRESH": "1.5", "ANALYSIS_THRESH": "1.5",
}
GAUSS = """CONV NORM
# a Gaussian of FWHM 2.5 px, on 5x5 pixels
0.034673 0.119131 0.179633 0.119131 0.034673
0.119131 0.409323 0.617200 0.409323 0.119131
0.179633 0.617200 0.930649 0.617200 0.179633
0.119131 0.409323 0.617200 0.409323 0.119131
0.034673 0.119131 0.179633 0.119131 0.034673
"""


def command(*names):
    """The first of these programs that is installed."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    sys.exit(f"peers: none of {', '.join(names)} is installed; packaging/install-what-is-missing quality installs it")


def quietly(words, folder):
    """Runs a program and returns its seconds; its words are shown only when it fails."""
    begun = time.monotonic()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"peers: {words[0]} failed:\n{done.stderr[-2000:]}")
    return time.monotonic() - begun


def swarp(science, reference, folder, threads=2):
    """The reference on the grid of the science frame, its weights, and the seconds that SWarp took."""
    header = fits.getheader(science)
    keep = [k for k in header if k.startswith(("CTYPE", "CRVAL", "CRPIX", "CD", "NAXIS", "CUNIT", "EQUINOX", "RADESYS"))]
    grid = fits.Header([(k, header[k]) for k in keep])
    (folder / "aligned.head").write_text("".join(str(card).rstrip() + "\n" for card in grid.cards) + "END\n")
    settings = SWARP | {"IMAGEOUT_NAME": folder / "aligned.fits", "WEIGHTOUT_NAME": folder / "weights.fits",
                        "RESAMPLE_DIR": folder, "NTHREADS": threads}
    words = [command("SWarp", "swarp"), str(reference), "-c", os.devnull]
    for key, value in settings.items():
        words += [f"-{key}", str(value)]
    return folder / "aligned.fits", quietly(words, folder)


def sextractor(image, folder, name, parameters, extra=()):
    """The catalogue of one run of source-extractor, and its seconds."""
    (folder / "wanted.param").write_text("\n".join(parameters) + "\n")
    (folder / "gauss.conv").write_text(GAUSS)
    settings = SEXTRACTOR | {"PARAMETERS_NAME": folder / "wanted.param", "FILTER_NAME": folder / "gauss.conv",
                             "CATALOG_NAME": folder / f"{name}.cat"} | dict(extra)
    words = [command("source-extractor", "sex", "sextractor"), str(image), "-c", os.devnull]
    for key, value in settings.items():
        words += [f"-{key}", str(value)]
    seconds = quietly(words, folder)
    table = np.loadtxt(folder / f"{name}.cat", comments="#", ndmin=2)
    return table.reshape(-1, len(parameters)), seconds


def flux_ratio(science, aligned):
    """Median ratio of bright pixels above the sky, science to reference."""
    n, r = science - np.median(science[::7, ::7]), aligned - np.median(aligned[::7, ::7])
    level = 30 * 1.4826 * np.median(np.abs(n[::7, ::7]))
    bright = (n > level) & (n < 0.2 * n.max()) & (r > 0)
    return float(np.sum(n[bright]) / np.sum(r[bright]))


def timing(science, reference, rounds=3):
    """Seconds: the best of some rounds, as others' benches do."""
    out = {"swarp": [], "sextractor +": [], "sextractor -": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for _ in range(rounds):
            aligned, seconds = swarp(science, reference, folder)
            out["swarp"].append(seconds)
            n, r = fits.getdata(science).astype(np.float32), fits.getdata(aligned)
            difference = n - np.float32(flux_ratio(n, r)) * r
            names = ("NUMBER", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER", "FLAGS", "FWHM_IMAGE")
            for sign, key in ((1, "sextractor +"), (-1, "sextractor -")):
                fits.PrimaryHDU(sign * difference).writeto(folder / "d.fits", overwrite=True)
                out[key].append(sextractor(folder / "d.fits", folder, "d", names)[1])
    best = {key: min(values) for key, values in out.items()}
    best["swarp + two sextractor"] = sum(best.values())
    return best


class Frames:
    """A scene's pair, sky-subtracted, with the noise of every pixel."""

    def __init__(self, scene, folder):
        import sep

        self.folder = folder
        self.science_path, self.reference_path = scene / "science.fits", scene / "reference.fits"
        self.header, self.reference_header = fits.getheader(self.science_path), fits.getheader(self.reference_path)
        aligned, self.swarp_seconds = swarp(self.science_path, self.reference_path, folder)
        begun = time.monotonic()
        from scipy.ndimage import binary_dilation

        self.science = fits.getdata(self.science_path).astype(np.float32)
        self.aligned = fits.getdata(aligned).astype(np.float32)
        self.saturated = (self.science >= self.header["SATURATE"]) | (self.aligned >= 0.9 * self.reference_header["SATURATE"])
        # Where the reference does not reach, and along the edge, nobody looks for sources.
        self.beyond = binary_dilation(self.aligned == 0, iterations=12)
        self.beyond[:20] = self.beyond[-20:] = self.beyond[:, :20] = self.beyond[:, -20:] = True
        self.skies = []
        for image in (self.science, self.aligned):
            nothing = image == 0
            background = sep.Background(image, mask=nothing, bw=64, bh=64, fw=3, fh=3)
            self.skies.append((background.globalrms, float(background.globalback)))
            image -= background.back()
            image[nothing] = 0
        self.prepare_seconds = time.monotonic() - begun
        # Photometry of bright stars tells the FWHM and the aperture correction of the science frame.
        stars = sep.extract(self.science, 50.0, err=self.skies[0][0])
        good = (stars["flag"] == 0) & (stars["peak"] < 0.5 * self.header["SATURATE"]) & (stars["a"] < 2.0 * np.median(stars["a"]))
        stars = stars[good]
        self.fwhm = float(np.median(2 * np.sqrt(np.log(2) * (stars["a"] ** 2 + stars["b"] ** 2))))
        self.radius = 0.9 * self.fwhm
        small = sep.sum_circle(self.science, stars["x"], stars["y"], self.radius)[0]
        large = sep.sum_circle(self.science, stars["x"], stars["y"], 8 * self.fwhm / 2)[0]
        self.correction = float(np.median(large / small))

    def inside(self, rows):
        """The candidates that lie on both frames; x and y are FITS pixels."""
        rows = [r for r in rows if np.isfinite(r[0] + r[1])]
        top, right = self.beyond.shape[0] - 1, self.beyond.shape[1] - 1
        return [r for r in rows if not self.beyond[min(max(round(r[1]) - 1, 0), top), min(max(round(r[0]) - 1, 0), right)]]

    def noise(self, kernel_sum_of_squares, ratio):
        """Standard deviation of the difference: photons of both frames, the reference smoothed by its kernel."""
        science = self.skies[0][0] ** 2 + np.maximum(self.science, 0) / self.header["GAIN"]
        reference = (self.skies[1][0] ** 2 + np.maximum(self.aligned, 0) / self.reference_header["GAIN"]) * ratio**2
        return np.sqrt(science + kernel_sum_of_squares * reference)


def detect_with_sep(difference, noise, frames, path):
    """Both signs: sep on the signal-to-noise of a matched filter, then fluxes in apertures.

    The filter is a Gaussian of the frame's FWHM and weighs pixels with their noise. (The matched filter of
    sep 1.4.1 itself, given the same noise, finds 6 of 32 changes of S/N 6 to 20.)
    """
    import sep
    from scipy.ndimage import convolve1d

    side = np.arange(-4, 5)
    sigma = frames.fwhm / 2.3548
    line = np.exp(-(side**2) / (2 * sigma**2))

    def smooth(image, kernel):
        return convolve1d(convolve1d(image, kernel, 0, mode="nearest"), kernel, 1, mode="nearest")

    weight = np.where(frames.saturated, 0, 1 / noise**2)
    significance = smooth(difference * weight, line) / np.sqrt(np.maximum(smooth(weight, line**2), 1e-12))
    # The noise of a smoothed reference is correlated: the scale is measured on the sky.
    sky = significance[::5, ::5]
    significance = significance / max(1.4826 * float(np.median(np.abs(sky - np.median(sky)))), 1e-3)
    rows = []
    sep.set_extract_pixstack(4_000_000)
    for sign in (1, -1):
        image = np.ascontiguousarray(sign * difference, dtype=np.float32)
        found = sep.extract(np.ascontiguousarray(sign * significance, dtype=np.float32), MIN_SNR, minarea=1, filter_kernel=None,
                            clean=False, deblend_cont=0.005)
        flux, error, _ = sep.sum_circle(image, found["xpeak"], found["ypeak"], frames.radius, err=noise, mask=frames.saturated)
        x, y, _ = sep.winpos(image, found["xpeak"], found["ypeak"], np.full(len(found), sigma))
        moved = np.hypot(x - found["xpeak"], y - found["ypeak"]) > 2
        x, y = np.where(moved, found["x"], x), np.where(moved, found["y"], y)
        flux, error, _ = sep.sum_circle(image, x, y, frames.radius, err=noise, mask=frames.saturated)
        rows += [(u + 1, v + 1, sign * f * frames.correction, e * frames.correction, s)
                 for u, v, f, e, s in zip(x, y, flux, error, found["peak"]) if e > 0]
    write_candidates(path, frames.inside(rows))


def detect_with_sextractor(difference, noise, frames, path):
    """Two runs of source-extractor with a weight map, fluxes in apertures."""
    names = ("XWIN_IMAGE", "YWIN_IMAGE", "FLUX_APER", "FLUXERR_APER", "FLAGS")
    weights = (1 / noise**2).astype(np.float32)
    weights[frames.saturated] = 0
    fits.PrimaryHDU(weights).writeto(frames.folder / "w.fits", overwrite=True)
    rows, seconds = [], 0.0
    for sign, name in ((1, "plus"), (-1, "minus")):
        image = frames.folder / f"{name}.fits"
        fits.PrimaryHDU(np.nan_to_num(sign * difference).astype(np.float32)).writeto(image, overwrite=True)
        table, took = sextractor(image, frames.folder, name, names, {
            "WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": frames.folder / "w.fits", "PHOT_APERTURES": 2 * frames.radius,
            "GAIN": "0"})
        seconds += took
        for x, y, flux, error, flags in table:
            if error > 0 and flux / error >= MIN_SNR and int(flags) & 0xF4 == 0:
                rows.append((x, y, sign * flux * frames.correction, error * frames.correction, flux / error))
    write_candidates(path, frames.inside(rows))
    return seconds


def write_candidates(path, rows):
    """The table that score.py reads."""
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["exposure", "x", "y", "flux", "flux_err", "snr", "positive", "rejected"])
        for x, y, flux, error, snr in rows:
            table.writerow(["science", f"{x:.3f}", f"{y:.3f}", f"{flux:.2f}", f"{error:.2f}", f"{snr:.2f}", "t" if flux > 0 else "f", ""])


PARTS, OVERLAP = 3, 48


def sfft_difference(frames, threads=2):
    """SFFT (Hu et al. 2022), sparse flavour, numpy on the CPU; the difference in the science frame's flux.

    In three by three parts with their own kernels of degree 2: with numpy a whole frame of 9.46 Mpx
    takes more than 23 GB. A part that SFFT refuses stays NaN.
    """
    tools = frames.folder / "tools"
    tools.mkdir(exist_ok=True)
    shim = tools / "sex"  # it looks for source-extractor under its old name
    if not shim.exists():
        shim.symlink_to(command("source-extractor", "sex", "sextractor"))
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    from sfft.EasySparsePacket import Easy_SparsePacket

    rows, columns = frames.science.shape
    parts = PARTS if rows * columns > 2_000_000 else 1
    difference = np.full((rows, columns), np.nan, np.float32)
    gains = (frames.header["GAIN"], frames.reference_header["GAIN"])
    levels = (frames.header["SATURATE"], 0.9 * frames.reference_header["SATURATE"])
    begun = time.monotonic()
    for j in range(parts):
        for i in range(parts):
            y0, y1, x0, x1 = rows * j // parts, rows * (j + 1) // parts, columns * i // parts, columns * (i + 1) // parts
            low, left = max(y0 - OVERLAP, 0), max(x0 - OVERLAP, 0)
            window = (slice(low, min(y1 + OVERLAP, rows)), slice(left, min(x1 + OVERLAP, columns)))
            paths = []
            for name, image, gain, level in zip(("n", "r"), (frames.science, frames.aligned), gains, levels):
                path = frames.folder / f"{name}.fits"
                header = fits.Header([("GAIN", gain), ("ESATUR", 0.9 * level)])
                fits.PrimaryHDU(image[window], header).writeto(path, overwrite=True)
                paths.append(str(path))
            try:
                Easy_SparsePacket.ESP(
                    FITS_REF=paths[1], FITS_SCI=paths[0], FITS_DIFF=str(frames.folder / "d.fits"), ForceConv="REF",
                    KerPolyOrder=2, BGPolyOrder=0, ConstPhotRatio=True, GAIN_KEY="GAIN", SATUR_KEY="ESATUR",
                    BACKEND_4SUBTRACT="Numpy", NUM_CPU_THREADS_4SUBTRACT=threads, VERBOSE_LEVEL=0)
            except (MemoryError, KeyboardInterrupt):
                raise
            except Exception as error:  # whatever it raises, the other parts go on and the hole is seen in the figures
                print(f"sfft, part {i},{j}: {error}", file=sys.stderr)
                continue
            part = fits.getdata(frames.folder / "d.fits")
            difference[y0:y1, x0:x1] = part[y0 - low:y1 - low, x0 - left:x1 - left]
    return difference, time.monotonic() - begun


def run(method, scene, out):
    """One method on one scene."""
    # A runaway takes itself down and not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        frames = Frames(scene, pathlib.Path(folder))
        seconds = {"swarp": frames.swarp_seconds, "sky": frames.prepare_seconds}
        ratio = flux_ratio(frames.science, frames.aligned)
        if method.startswith("sfft"):
            difference, seconds["sfft"] = sfft_difference(frames)
            # A kernel that broadens the reference to the science frame smooths its noise.
            noise = frames.noise(0.3, ratio)
        else:
            difference, noise = frames.science - np.float32(ratio) * frames.aligned, frames.noise(1.0, ratio)
        difference = np.nan_to_num(difference)
        begun = time.monotonic()
        if method.endswith("sep"):
            detect_with_sep(difference, noise, frames, out / "candidates.csv")
            seconds["sep"] = time.monotonic() - begun
        else:
            seconds["sextractor"] = detect_with_sextractor(difference, noise, frames, out / "candidates.csv")
    seconds["all"] = sum(seconds.values())
    # Wall-clock seconds mean nothing on a busy machine; these are what all cores spent.
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds["cpu"] = sum(u.ru_utime + u.ru_stime for u in spent)
    (out / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n")
    return seconds


def cosmic_rays(scene):
    """astroscrappy on a science frame whose cosmic rays are known."""
    import astroscrappy

    header, pixels = fits.getheader(scene / "science.fits"), fits.getdata(scene / "science.fits").astype(np.float32)
    about = json.loads((scene / "scene.json").read_text())
    marks = fits.getdata(scene / "defects.fits.gz")
    begun = time.monotonic()
    found, _ = astroscrappy.detect_cosmics(pixels, gain=1.0, readnoise=header["RDNOISE"], satlevel=header["SATURATE"],
                                           sigclip=4.5, sigfrac=0.3, objlim=5.0, fsmode="median", cleantype="medmask")
    seconds = time.monotonic() - begun
    sharp = (marks & 5) != 0
    bright = sharp & (pixels - np.median(pixels) > 5 * about["noise"])
    stars = [row for row in csv.DictReader(open(scene / "stars.csv")) if float(row["mag"]) < 18]
    hit = 0
    from scipy.ndimage import distance_transform_edt

    far = distance_transform_edt(marks == 0)
    inside = 0
    for row in stars:
        i, j = int(round(float(row["x"]))) - 1, int(round(float(row["y"]))) - 1
        if 5 < i < pixels.shape[1] - 5 and 5 < j < pixels.shape[0] - 5 and far[j, i] > 6:
            inside += 1
            hit += bool(found[j - 1:j + 2, i - 1:i + 2].any())
    return {"seconds": seconds, "pixels found": float((found & bright).sum() / bright.sum()), "marked": int(found.sum()),
            "marked elsewhere": int((found & (distance_transform_edt(~(marks > 0)) > 2)).sum()),
            "stars brighter than 18 mag marked": f"{hit} of {inside}"}


def main():
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(dest="verb", required=True)
    t = verbs.add_parser("time")
    t.add_argument("science", type=pathlib.Path)
    t.add_argument("reference", type=pathlib.Path)
    t.add_argument("--json", type=pathlib.Path)
    t.add_argument("--rounds", type=int, default=3)
    r = verbs.add_parser("run")
    r.add_argument("method", choices=("sfft-sep", "sfft-sextractor", "swarp-sextractor"))
    r.add_argument("scene", type=pathlib.Path)
    r.add_argument("out", type=pathlib.Path)
    c = verbs.add_parser("cosmic-rays")
    c.add_argument("scene", type=pathlib.Path)
    o = p.parse_args()
    if o.verb == "time":
        seconds = timing(o.science.absolute(), o.reference.absolute(), o.rounds)
    elif o.verb == "run":
        seconds = run(o.method, o.scene.absolute(), o.out.absolute())
    else:
        seconds = cosmic_rays(o.scene.absolute())
    for key, value in seconds.items():
        print(f"{key:34s} " + (f"{value:8.3f}" if isinstance(value, float) else str(value)))
    if o.verb == "time" and o.json:
        o.json.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
