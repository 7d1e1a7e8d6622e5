"""A recorded night: bias, dark and flat frames, light frames in ADU, and references/ beside them."""

import numpy as np
from astropy.io import fits

import defects
from defects import FULL_WELL, READ_NOISE
from render import smooth_sky
from tables import reference_hdu, write_catalogues, write_marks, write_truth

GAIN = 6.2
BIAS = 1000.0
DARK = 0.05  # electrons a second
EXPOSURE = 30.0
DARK_EXPOSURE = 120.0
FULL_WELL_ADU = FULL_WELL / GAIN


def _flat_field(shape, rng):
    """Pixel response with vignetting, dust and the grain of the pixels; its median is 1."""
    rows, columns = shape
    u, v = np.linspace(-1, 1, columns)[None, :], np.linspace(-1, 1, rows)[:, None]
    response = 1.0 - 0.06 * (u * u + v * v)
    for _ in range(12):
        cu, cv, r, deep = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.01, 0.03), rng.uniform(0.005, 0.03)
        d = np.hypot(u - cu, v - cv)
        response = response * (1 - deep * np.exp(-((d - r) / (0.4 * r)) ** 2))
    response = response * (1 + 0.008 * rng.normal(size=shape))
    return response / np.median(response)


class Detector:
    """What the camera does with electrons."""

    def __init__(self, scene, rng):
        self.shape, self.read_noise, self.rng = scene.shape, READ_NOISE, rng
        rows, columns = self.shape
        self.response = _flat_field(self.shape, rng)
        self.level = BIAS + 3 * np.sin(np.arange(columns) / 200.0)[None, :] + rng.normal(0, 0.8, columns)[None, :]
        self.dark = DARK * rng.lognormal(0, 0.3, self.shape)
        # Pixels that are hot in every frame: darks show them.
        ys, xs = rng.integers(0, rows, 400), rng.integers(0, columns, 400)
        self.dark[ys, xs] += np.exp(rng.uniform(np.log(5), np.log(500), 400))
        self.weak = [(int(x), rng.uniform(0.3, 0.7)) for x in rng.integers(20, columns - 20, 3)]
        for x, factor in self.weak:
            self.response[:, x] *= factor

    def read(self, electrons):
        """ADU of a frame whose pixels hold `electrons`."""
        noisy = electrons + self.rng.normal(0, self.read_noise, self.shape)
        return np.clip(np.round(noisy / GAIN + self.level), 0, 65535).astype(np.uint16)

    def write(self, path, adu, kind, exposure_s, date, extra=None):
        """One file as a camera writes it."""
        header = extra.copy() if extra is not None else fits.Header()
        header["IMAGETYP"], header["EXPTIME"], header["DATE-OBS"] = kind, exposure_s, date
        header["FILTER"], header["OBJECT"] = "r", "field" if kind == "light" else kind
        header["GAIN"], header["RDNOISE"] = (GAIN, "electrons per ADU"), (self.read_noise, "electrons")
        header["SATURATE"], header["CCD-TEMP"] = float(np.floor(0.95 * FULL_WELL_ADU + BIAS)), -90.0
        fits.PrimaryHDU(adu, header).writeto(path, overwrite=True)


def write(scene, folder):
    """frames/ and the tables; returns what was made."""
    o, rng = scene.options, scene.spare[1]
    frames = folder / "frames"
    (frames / "references").mkdir(parents=True, exist_ok=True)
    camera = Detector(scene, rng)
    for k in range(9):
        camera.write(frames / f"bias{k}.fits", camera.read(np.zeros(scene.shape)), "bias", 0.0, f"2026-11-24T01:{k:02d}:00.000")
    for k in range(7):
        charge = rng.poisson(camera.dark * DARK_EXPOSURE).astype(float)
        defects.cosmic_rays(charge, np.zeros(scene.shape, np.uint8), int(800 * scene.area), rng)
        camera.write(frames / f"dark{k}.fits", camera.read(charge), "dark", DARK_EXPOSURE, f"2026-11-24T02:{3 * k:02d}:00.000")
    for k in range(9):
        light = rng.poisson(camera.response * rng.uniform(0.8, 1.2) * 120_000).astype(float)
        camera.write(frames / f"flat{k}.fits", camera.read(light), "flat", 5.0, f"2026-11-24T00:{k:02d}:00.000")
    all_changes, made = {}, []
    kept = [scene.changes() for _ in range(o.exposures)]
    # What is gone stands in the reference and is away from every exposure.
    gone = [row for row in kept[0] if row["kind"].endswith("gone")]
    away = np.array([(row["x"], row["y"]) for row in gone]).reshape(-1, 2)
    mean, reference_sources, reference_marks = scene.reference(gone)
    reference_hdu(scene, mean).writeto(frames / "references" / "field.fits", overwrite=True)
    for k in range(o.exposures):
        name = f"light{k}"
        changes = [dict(row) for row in gone]
        for row in kept[k]:
            apart = not len(away) or np.hypot(*(away - (row["x"], row["y"])).T).min() > 11
            if not row["kind"].endswith("gone") and apart:
                changes.append(row)
        sources = scene.science_sources(changes)
        marks = np.zeros(scene.shape, np.uint8)
        sky = smooth_sky(scene.shape, o.sky, o.gradient, rng)
        charge = rng.poisson((sources + sky) * camera.response + camera.dark * EXPOSURE).astype(float)
        defects.cosmic_rays(charge, marks, int(round(o.cosmic_rays * scene.area)), rng)
        defects.hot_pixels(charge, marks, int(round(o.hot_pixels * scene.area)), rng)
        defects.bleed(charge, FULL_WELL, marks, defects.SATURATED)
        marks[camera.dark > 3] |= defects.HOT
        for x, _ in camera.weak:
            marks[:, x] |= defects.COLUMN
        camera.write(frames / f"{name}.fits", np.minimum(camera.read(charge), np.uint16(FULL_WELL_ADU + BIAS)), "light",
                     EXPOSURE, f"2026-11-24T05:{k:02d}:00.000", scene.geometry.science_header())
        scene.finish_truth(changes, sources, reference_sources, marks, reference_marks)
        write_marks(scene, folder / f"defects-{name}.fits.gz", marks, reference_marks)
        all_changes[name] = changes
        made.append({"exposure": name, "changes": len(changes)})
    write_truth(folder / "truth.csv", all_changes)
    write_catalogues(scene, folder, [row for rows in all_changes.values() for row in rows])
    return made
