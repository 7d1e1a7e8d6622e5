#!/usr/bin/env python3
"""Pairs of frames that telescopes took: how many candidates are left, and what they look like.

    real.py NIGHTJAR DATA OUT [--threshold S/N]

DATA is the folder of real frames (../shared/data beside the clone). For every pair OUT/NAME holds what
`nightjar difference` left and sheet.png: science, reference, difference and score about each candidate.
"""

import argparse
import csv
import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SOURCE = (130.0, 129.0)  # FITS pixel of the brightening in the DECam frames


def pairs(data):
    """Name, science, reference."""
    out = []
    decam = data / "thomasvrussell+sfft"
    out += [(f"decam-{k}", decam / f"DEC-OBS04{k}.mini.fits.gz", decam / f"DEC-OBS18{k}.mini.fits.gz") for k in "abcde"]
    proper = data / "quatrope+ProperImage"
    out.append(("properimage", proper / "aligned_eso085-030-004.fit.gz", proper / "aligned_eso085-030-005.fit.gz"))
    frames = sorted((data / "legacysurvey+legacypipe" / "testcase4").glob("*ooi*.fits"))
    for a, b in itertools.combinations(frames, 2):
        filters = [f.name.split("_ooi_")[1][0] for f in (a, b)]
        if filters[0] == filters[1]:
            dates = [f.name.split("_")[1] for f in (a, b)]
            out.append((f"legacypipe-{filters[0]}-{dates[1]}-{dates[0]}", b, a))
    panoptes = data / "panoptes+panoptes-utils"
    out.append(("panoptes", panoptes / "solved.fits.fz", panoptes / "unsolved.fits.gz"))
    return [p for p in out if p[1].exists() and p[2].exists()]


def run(nightjar, data, out, threshold=None):
    """Every pair; a list of what came of it."""
    results = []
    for name, science, reference in pairs(data):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*"):
            old.unlink()
        words = [str(nightjar), "difference", str(science), str(reference), "--out", str(folder)]
        if threshold:
            words += ["--threshold", str(threshold)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        result = {"pair": name, "refused": "", "warnings": [], "candidates": 0, "kept": []}
        if done.returncode:
            result["refused"] = lines[-1].replace(str(science.parent) + "/", "") if lines else f"exit code {done.returncode}"
        else:
            with open(folder / "candidates.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            result["candidates"] = len(rows)
            result["warnings"] = [line.removeprefix("nightjar: ") for line in lines[:-1]]
            result["kept"] = [{k: r[k] for k in ("x", "y", "snr", "flux", "positive", "fwhm", "chi", "flags")}
                              for r in rows if not r["rejected"]]
            near = [r for r in rows if np.hypot(float(r["x"]) - SOURCE[0], float(r["y"]) - SOURCE[1]) < 1.5]
            if name.startswith("decam"):
                result["brightening"] = (f"S/N {near[0]['snr']}" + (f", {near[0]['rejected']}" if near[0]["rejected"] else "")
                                         if near else "not found")
            if result["kept"]:
                sheet(name, science, reference, folder, result["kept"])
        results.append(result)
    (out / "real.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def image(path):
    """The first plane of a file and its header."""
    with fits.open(path) as file:
        plane = next(h for h in file if h.data is not None and h.data.ndim == 2)
        return plane.data.astype(float), plane.header


def sheet(name, science, reference, folder, kept, half=20):
    """One row a candidate."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from scipy.ndimage import map_coordinates

    n, n_header = image(science)
    r, r_header = image(reference)
    d, s = image(folder / "difference.fits")[0], image(folder / "score.fits")[0]
    kept = kept[:14]
    figure, axes = pyplot.subplots(len(kept), 4, figsize=(8, 2.1 * len(kept)), squeeze=False)
    for row, c in zip(axes, kept):
        x, y = float(c["x"]) - 1, float(c["y"]) - 1
        gy, gx = np.mgrid[-half:half + 1, -half:half + 1]
        gx, gy = gx + round(x), gy + round(y)
        if name.startswith("legacypipe"):
            ra, dec = WCS(n_header).all_pix2world(gx, gy, 0)
            rx, ry = WCS(r_header).all_world2pix(ra, dec, 0)
        else:
            rx, ry = gx, gy
        for axis, picture, (px, py), title in zip(
                row, (n, r, d, s), ((gx, gy), (rx, ry), (gx, gy), (gx, gy)), ("science", "reference", "difference", "score")):
            cut = map_coordinates(np.nan_to_num(picture), (py, px), order=1, mode="constant", cval=np.nan)
            middle, scale = np.nanmedian(cut), max(1.4826 * np.nanmedian(np.abs(cut - np.nanmedian(cut))), 1e-6)
            low, high = (-8, 8) if title == "score" else (middle - 4 * scale, middle + 12 * scale)
            if title == "difference":
                low, high = middle - 8 * scale, middle + 8 * scale
            axis.imshow(cut, origin="lower", cmap="gray", vmin=low, vmax=high)
            axis.plot(half + x - round(x), half + y - round(y), "o", ms=14, mfc="none", mec="tab:red", lw=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(title if title != "science" else f"({c['x']}, {c['y']}) S/N {c['snr']} {'+' if c['positive'] == 't' else '-'}", fontsize=7)
    figure.suptitle(name, fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "sheet.png", dpi=85)
    pyplot.close(figure)


def main():
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("nightjar", type=pathlib.Path)
    p.add_argument("data", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--threshold", type=float)
    o = p.parse_args()
    if not pairs(o.data):
        sys.exit(f"real: no frames in {o.data}; name the folder that holds thomasvrussell+sfft and the others")
    for r in run(o.nightjar.absolute(), o.data.absolute(), o.out.absolute(), o.threshold):
        where = " ".join(f"({c['x']},{c['y']}) {c['snr']}{'+' if c['positive'] == 't' else '-'}" for c in r["kept"])
        print(f"{r['pair']:28s} {r.get('brightening', ''):10s} kept {len(r['kept'])} of {r['candidates']} {where} {r['refused']}")


if __name__ == "__main__":
    main()
