"""What a scene leaves on disk: the tables of the truth, the map of defects, and the reference."""

import csv

import numpy as np
from astropy.io import fits

from defects import FULL_WELL, READ_NOISE, REFERENCE_SATURATED
from sky import mag_of

TRUTH = ["exposure", "kind", "x", "y", "ra", "dec", "flux", "snr", "error", "scored", "near_defect", "base_flux",
         "base_mag", "length", "angle", "rx", "ry", "error_x", "error_y"]


def write_truth(path, by_exposure):
    """truth.csv. Scored are points off defects; trails are scored apart."""
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(TRUTH)
        for exposure, changes in by_exposure.items():
            for row in changes:
                scored = int(row["kind"] != "trail" and not row["near_defect"])
                table.writerow([exposure, row["kind"], f"{row['x'] + 1:.4f}", f"{row['y'] + 1:.4f}", f"{row['ra']:.7f}",
                                f"{row['dec']:.7f}", f"{row['flux']:.2f}", f"{row['snr']:.3f}", f"{row['error']:.3f}",
                                scored, row["near_defect"], f"{row['base_flux']:.1f}", f"{row['base_mag']:.3f}",
                                f"{row['length']:.2f}", f"{row['angle']:.3f}", f"{row['rx'] + 1:.4f}", f"{row['ry'] + 1:.4f}",
                                f"{row['error_x']:.5f}", f"{row['error_y']:.5f}"])


def write_catalogues(scene, folder, changes):
    """stars.csv and galaxies.csv."""
    c = scene.catalogue
    variable = {row["star"] for row in changes}
    with open(folder / "stars.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["x", "y", "flux", "mag", "variable"])
        for k, (x, y, f) in enumerate(zip(c.x, c.y, c.flux)):
            table.writerow([f"{x + 1:.4f}", f"{y + 1:.4f}", f"{f:.1f}", f"{mag_of(f):.4f}", int(k in variable)])
    with open(folder / "galaxies.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["x", "y", "flux", "mag", "scale"])
        for x, y, f, r in zip(c.gx, c.gy, c.gflux, c.gsize):
            table.writerow([f"{x + 1:.3f}", f"{y + 1:.3f}", f"{f:.1f}", f"{mag_of(f):.3f}", f"{r:.2f}"])


def reference_hdu(scene, mean):
    """The reference as it is written: a mean with its effective gain, or a sum."""
    o = scene.options
    header = scene.geometry.reference_header()
    factor = o.depth if o.reference_sum else 1.0
    header["IMAGETYP"], header["FILTER"], header["OBJECT"] = "reference", "r", "field"
    header["EXPTIME"] = 30.0 * factor
    header["DATE-OBS"] = "2026-10-01T05:00:00.000"
    header["GAIN"] = (o.depth / factor, "electrons of all exposures per unit")
    header["RDNOISE"] = (READ_NOISE * np.sqrt(o.depth), "electrons")
    header["SATURATE"] = 0.95 * FULL_WELL * factor - (o.sky if o.subtracted else 0.0)
    header["NCOMBINE"] = int(round(o.depth))
    header["MAGZP"] = float(mag_of(1.0) + 2.5 * np.log10(o.reference_scale * factor))
    return fits.PrimaryHDU((mean * factor).astype(np.float32), header)


def write_marks(scene, path, marks, reference_marks):
    """Defects of both frames on the grid of the science frame."""
    both = marks.copy()
    rows, columns = scene.shape
    y, x = np.nonzero(reference_marks)
    if x.size:
        # Backwards by a few rounds of the forward mapping: a tenth of a pixel is enough for marks.
        sx, sy = x.astype(float), y.astype(float)
        for _ in range(6):
            fx, fy = scene.geometry.to_reference(sx, sy)
            ex, ey = x - fx, y - fy
            t = scene.geometry.turn
            sx, sy = sx + t[0, 0] * ex + t[1, 0] * ey, sy + t[0, 1] * ex + t[1, 1] * ey
        sx, sy = np.round(sx).astype(int), np.round(sy).astype(int)
        inside = (sx >= 0) & (sx < columns) & (sy >= 0) & (sy < rows)
        both[sy[inside], sx[inside]] |= REFERENCE_SATURATED
    fits.PrimaryHDU(both).writeto(path, overwrite=True)
