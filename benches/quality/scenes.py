#!/usr/bin/env python3
"""Makes pairs of frames, and raw nights, of a sky of which everything is known.

Written from the physics and on purpose without a line of the crate's own simulator: what judges
Nightjar must not share its mistakes.

    scenes.py FOLDER [--seed N] [--size 3072x3080] [--stars N] ... [--raw]

leaves in FOLDER: science.fits, reference.fits (or, with --raw, frames/ with bias, dark, flat and light
frames and frames/references/), truth.csv, stars.csv, galaxies.csv, defects.fits.gz and scene.json.
Pixel coordinates in the tables are FITS pixels: the centre of the first is (1, 1).
"""

import argparse
import json
import pathlib
import time

import numpy as np
from astropy.io import fits

import defects
import raw_night
from defects import FULL_WELL, READ_NOISE
from geometry import Geometry
from psf import KINDS, VaryingPsf
from render import Canvas, smooth_sky
from sky import Catalogue, Changes, make_changes, mag_of
from tables import reference_hdu, write_catalogues, write_marks, write_truth
from truth import Ideal


def arguments(words=None):
    """The command line; every default is that of the standard scene."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--size", default="3072x3080", help="columns x rows")
    p.add_argument("--stars", type=int, default=4600)
    p.add_argument("--faint", type=float, default=21.5, help="faintest star, magnitude")
    p.add_argument("--galaxies", type=int, default=800)
    p.add_argument("--changes", type=int, default=830)
    p.add_argument("--trails", type=int, default=12)
    p.add_argument("--psf", choices=KINDS, default="moffat")
    p.add_argument("--fwhm", type=float, help="of the science frame, px [drawn from 2.1 to 2.5]")
    p.add_argument("--reference-fwhm", type=float, help="px [drawn from 1.9 to 2.2]")
    p.add_argument("--angle", type=float, default=0.3, help="of the reference, degrees")
    p.add_argument("--shift", type=float, default=15.0, help="of the reference, px, in a drawn direction")
    p.add_argument("--distortion", type=float, default=0.15, help="that no header tells, px at the corners")
    p.add_argument("--wcs-error", type=float, default=0.0, help="of the science frame's header, arcsec")
    p.add_argument("--sky", type=float, default=1000.0, help="electrons a pixel")
    p.add_argument("--gradient", type=float, default=0.10, help="of the sky, as a part of it")
    p.add_argument("--depth", type=float, default=15.0, help="exposures in the reference")
    p.add_argument("--reference-scale", type=float, default=1.0, help="transparency of the reference, science = 1")
    p.add_argument("--reference-sum", action="store_true", help="the reference is a sum of exposures, not their mean")
    p.add_argument("--subtracted", action="store_true", help="both frames without their sky")
    p.add_argument("--cosmic-rays", type=int, default=500)
    p.add_argument("--hot-pixels", type=int, default=150)
    p.add_argument("--columns", type=int, default=5)
    p.add_argument("--min-amplitude", type=float, default=0.02, help="least part of its light by which a star varies")
    p.add_argument("--null", action="store_true", help="N = R with fresh noise: same PSF and place, no change, no defect")
    p.add_argument("--raw", action="store_true", help="a recorded night instead of a pair")
    p.add_argument("--exposures", type=int, default=2, help="of a raw night")
    return p.parse_args(words)


class Scene:
    """The sky, the optics and the reference; `exposure` makes science frames of it."""

    def __init__(self, options, draw=True):
        o = self.options = options
        columns, rows = (int(n) for n in o.size.lower().split("x"))
        self.shape = (rows, columns)
        seeds = np.random.SeedSequence(o.seed).spawn(6)
        sky, optics, reference, *self.spare = (np.random.default_rng(s) for s in seeds)
        self.optics = optics
        area = rows * columns / (3072 * 3080)
        drawn, direction = optics.uniform(size=2), optics.uniform(0, 2 * np.pi)
        self.fwhm = o.fwhm or 2.1 + 0.4 * drawn[0]
        reference_fwhm = o.reference_fwhm or 1.9 + 0.3 * drawn[1]
        shift = (o.shift * np.cos(direction), o.shift * np.sin(direction))
        angle, distortion = (0.0, 0.0) if o.null else (o.angle, o.distortion)
        self.geometry = Geometry(self.shape, angle, (0.0, 0.0) if o.null else shift, distortion, optics, o.wcs_error)
        self.psf = VaryingPsf(o.psf, self.fwhm, self.shape, optics)
        self.reference_psf = self.psf if o.null else VaryingPsf(o.psf, reference_fwhm, self.shape, optics)
        self.reference_fwhm = self.fwhm if o.null else reference_fwhm
        self.noise = np.sqrt(o.sky + READ_NOISE**2)
        self.reference_noise = np.sqrt((o.sky + READ_NOISE**2) / o.depth) / o.reference_scale
        self.catalogue = Catalogue(self.shape, o.stars * area, o.galaxies * area, sky, faint=o.faint)
        peak = self.psf.at(columns / 2, rows / 2).pixels(0.0, 0.0)
        reference_peak = self.reference_psf.at(columns / 2, rows / 2).pixels(0.0, 0.0) * o.reference_scale
        self.saturation = 0.9 * (FULL_WELL - o.sky) / max(peak, reference_peak)
        self.ideal = Ideal(self.psf, self.reference_psf, self.geometry, self.noise, self.reference_noise,
                           1 / (o.reference_scale * o.depth))
        self.area, self.sky_rng = area, sky
        if draw:
            self._draw_reference(reference)

    def _draw_reference(self, rng):
        o, c = self.options, self.catalogue
        rx, ry = self.geometry.to_reference(c.x, c.y)
        canvas = Canvas(self.shape, self.reference_psf, self.reference_noise)
        for x, y, flux in zip(rx, ry, c.flux):
            canvas.star(x, y, flux)
        gx, gy = self.geometry.to_reference(c.gx, c.gy)
        for k in range(len(gx)):
            canvas.galaxy(gx[k], gy[k], c.gflux[k], c.gsize[k], c.gratio[k],
                          c.gangle[k] + self.geometry.angle, c.gbulge[k])
        self.reference_sources = canvas.image
        self.reference_rng = rng

    def changes(self):
        """New changes for one exposure. What is gone from it is drawn into the reference by `reference`."""
        o, c = self.options, self.catalogue
        if o.null or o.changes == 0:
            return []
        saturated = np.c_[c.x, c.y][c.flux > self.saturation]
        rows, columns = self.shape

        def clear_of(x, y):
            rx, ry = self.geometry.to_reference(x, y)
            inside = 24 <= rx <= columns - 25 and 24 <= ry <= rows - 25
            return inside and (not len(saturated) or np.hypot(*(saturated - (x, y)).T).min() > 14)

        made = Changes(self.shape, clear_of)
        return make_changes(c, int(round(o.changes * self.area)), self.ideal.star_error, made, self.sky_rng,
                            trails=int(round(o.trails * self.area)), saturation=self.saturation,
                            min_amplitude=o.min_amplitude)

    def science_sources(self, changes):
        """Expected electrons of the science frame, without sky."""
        c = self.catalogue
        flux = c.flux.copy()
        canvas = Canvas(self.shape, self.psf, self.noise)
        for row in changes:
            if row["star"] >= 0:
                flux[row["star"]] += row["flux"]
            elif row["kind"] == "trail":
                canvas.trail(row["x"], row["y"], row["flux"], row["length"], row["angle"])
            elif row["flux"] > 0:
                canvas.star(row["x"], row["y"], row["flux"])
        for x, y, f in zip(c.x, c.y, flux):
            canvas.star(x, y, f)
        for k in range(len(c.gx)):
            canvas.galaxy(c.gx[k], c.gy[k], c.gflux[k], c.gsize[k], c.gratio[k], c.gangle[k], c.gbulge[k])
        return canvas.image

    def reference(self, changes):
        """Pixels, expected sources (science electrons) and defect marks of the reference, on its own grid."""
        o, rng = self.options, self.reference_rng
        canvas = Canvas(self.shape, self.reference_psf, self.reference_noise)
        for row in changes:
            if row["kind"].endswith("gone"):
                canvas.star(*self.geometry.to_reference(row["x"], row["y"]), -row["flux"])
        sources = self.reference_sources + canvas.image
        sky = smooth_sky(self.shape, o.sky, o.gradient, rng)
        # Electrons of all exposures together; the clouds dim the stars, not the sky.
        total = rng.poisson((sources * o.reference_scale + sky) * o.depth).astype(float)
        total += rng.normal(0, READ_NOISE * np.sqrt(o.depth), self.shape)
        mean = total / o.depth
        marks = np.zeros(self.shape, np.uint8)
        defects.bleed(mean, FULL_WELL, marks, defects.REFERENCE_SATURATED)
        if o.subtracted:
            mean -= sky
        return mean, sources, marks

    def science(self, changes, rng):
        """Electrons, expected electrons and defect marks of a science frame."""
        o = self.options
        sources = self.science_sources(changes)
        sky = smooth_sky(self.shape, o.sky, o.gradient, rng)
        pixels = rng.poisson(sources + sky).astype(float)
        marks = np.zeros(self.shape, np.uint8)
        if not o.null:
            defects.cosmic_rays(pixels, marks, int(round(o.cosmic_rays * self.area)), rng)
            defects.hot_pixels(pixels, marks, int(round(o.hot_pixels * self.area)), rng)
        defects.bleed(pixels, FULL_WELL, marks, defects.SATURATED)
        return pixels, sources, sky, marks

    def finish_truth(self, changes, sources, reference_sources, marks, reference_marks):
        """Adds ideal error, S/N and flags to the changes."""
        from scipy.ndimage import distance_transform_edt

        o = self.options
        variance = sources + self.noise**2
        reference_variance = reference_sources / (o.reference_scale * o.depth) + self.reference_noise**2
        far = distance_transform_edt(marks == 0)
        reference_far = distance_transform_edt(reference_marks == 0) if reference_marks.any() else np.full(self.shape, 1e9)
        for row in changes:
            x, y = row["x"], row["y"]
            rx, ry = self.geometry.to_reference(x, y)
            row["error"], row["error_x"], row["error_y"] = self.ideal.errors(x, y, row["flux"], variance, reference_variance)
            row["snr"] = abs(row["flux"]) / row["error"]
            if row["base_flux"]:
                row["base_mag"] = float(mag_of(row["base_flux"]))
            row["near_defect"] = int(far[int(round(y)), int(round(x))] <= 4.0
                                     or reference_far[int(round(float(ry))), int(round(float(rx)))] <= 6.0)
            row["ra"], row["dec"] = (float(v) for v in self.geometry.sky(x, y))
            row["rx"], row["ry"] = float(rx), float(ry)


def write_pair(scene, folder):
    """science.fits, reference.fits and the tables."""
    o = scene.options
    changes = scene.changes()
    rng = scene.spare[0]
    pixels, sources, sky, marks = scene.science(changes, rng)
    pixels += rng.normal(0, READ_NOISE, scene.shape)
    if not o.null:
        defects.bad_columns(pixels, marks, rng, max(1, round(o.columns * np.sqrt(scene.area))) if o.columns else 0)
    np.minimum(pixels, FULL_WELL, out=pixels)
    if o.subtracted:
        pixels -= sky
    mean, reference_sources, reference_marks = scene.reference(changes)
    header = scene.geometry.science_header()
    header["IMAGETYP"], header["FILTER"], header["OBJECT"] = "light", "r", "field"
    header["EXPTIME"], header["DATE-OBS"] = 30.0, "2026-11-24T05:00:00.000"
    header["BUNIT"], header["GAIN"], header["RDNOISE"] = "electron", 1.0, READ_NOISE
    header["SATURATE"] = 0.95 * FULL_WELL - (o.sky if o.subtracted else 0.0)
    fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(folder / "science.fits", overwrite=True)
    reference_hdu(scene, mean).writeto(folder / "reference.fits", overwrite=True)
    scene.finish_truth(changes, sources, reference_sources, marks, reference_marks)
    write_truth(folder / "truth.csv", {"science": changes})
    write_catalogues(scene, folder, changes)
    write_marks(scene, folder / "defects.fits.gz", marks, reference_marks)
    return [{"exposure": "science", "changes": len(changes)}]


def main(words=None):
    """Makes one scene."""
    begun = time.monotonic()
    o = arguments(words)
    o.folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(o)
    made = raw_night.write(scene, o.folder) if o.raw else write_pair(scene, o.folder)
    about = {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(o).items()}
    about.update(fwhm=scene.fwhm, reference_fwhm=scene.reference_fwhm, zero_point=float(mag_of(1.0)),
                 saturation_mag=float(mag_of(scene.saturation)), noise=float(scene.noise),
                 reference_noise=float(scene.reference_noise), exposures=made,
                 raw=bool(o.raw), seconds=round(time.monotonic() - begun, 1))
    (o.folder / "scene.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{o.folder}: {made}, FWHM {scene.fwhm:.2f} and {scene.reference_fwhm:.2f} px, {about['seconds']} s")


if __name__ == "__main__":
    main()
