"""The scenes of the quality page: seeds on which nothing was ever tuned.

Made by `make quality` and kept with what made them: a scene is made again when its options or the
simulator change.
"""

import hashlib
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
MAKES_SCENES = ("scenes.py", "sky.py", "psf.py", "render.py", "geometry.py", "defects.py", "truth.py", "tables.py", "raw_night.py")

# name: (options, what it shows)
STANDARD = {
    "h1": ("--seed 51017", "sky left in"),
    "h2": ("--seed 51029 --subtracted --reference-scale 1.25", "sky subtracted, clear reference"),
    "h3": ("--seed 51039 --reference-sum --reference-scale 0.8", "reference a sum"),
    "h4": ("--seed 51047 --wcs-error 0.3", "WCS 0.3 arcsec wrong"),
    "h5": ("--seed 51051 --wcs-error 0.3 --subtracted --angle -0.4", "WCS 0.3 arcsec wrong, sky subtracted"),
    "h6": ("--seed 51057 --shift 25", "dither of 25 px"),
}
VARIANTS = {
    "two-moffat": ("--seed 52013 --psf two-moffat", "two Moffats of different width"),
    "coma": ("--seed 52017 --psf coma", "coma and trefoil over the field"),
    "stars-60": ("--seed 52019 --stars 60 --faint 19.5", "60 stars, 800 galaxies"),
    "stars-500": ("--seed 52023 --stars 500 --faint 20.5", "500 stars"),
    "stars-30000": ("--seed 52029 --stars 30000", "30,000 stars"),
    "stars-60000": ("--seed 52043 --stars 60000", "60,000 stars"),
    "turned": ("--seed 52061 --angle 180.2", "reference turned by 180 degrees"),
    "broad": ("--seed 52071 --fwhm 4.2 --reference-fwhm 2.1", "science FWHM 4.2, reference 2.1 px"),
    "sharp": ("--seed 52073 --fwhm 2.0 --reference-fwhm 4.0", "science FWHM 2.0, reference 4.0 px"),
    "fwhm-1.6": ("--seed 52083 --fwhm 1.6 --reference-fwhm 1.7", "FWHM 1.6 and 1.7 px"),
    "fwhm-6": ("--seed 52089 --fwhm 6.0 --reference-fwhm 5.2", "FWHM 6.0 and 5.2 px"),
    "shallow": ("--seed 52101 --depth 2", "reference of two exposures"),
}
NULL = {"null": ("--seed 53003 --null", "N = R with fresh noise, nothing changed")}
RAW = {"raw": ("--seed 53013 --raw --exposures 2", "two raw exposures with bias, dark and flat frames")}
# The peers get an exact WCS, as SCAMP would have made it.
PEERS = {"peers": ("--seed 54017 --distortion 0", "exact WCS")}
QUICK = {
    "quick": ("--seed 55007 --size 1024x1024", "1024 x 1024"),
    "quick-two-moffat": ("--seed 55011 --size 1024x1024 --psf two-moffat", "1024 x 1024, two Moffats"),
    "quick-coma": ("--seed 55013 --size 1024x1024 --psf coma", "1024 x 1024, coma and trefoil"),
    "quick-null": ("--seed 55019 --size 1024x1024 --null", "1024 x 1024, nothing changed"),
}


def made_by(options):
    """What a scene depends on."""
    digest = hashlib.sha256(options.encode())
    for name in MAKES_SCENES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def make(folder, scenes):
    """Makes those of `scenes` that are not there; returns their folders by name."""
    out = {}
    for name, (options, _) in scenes.items():
        scene = folder / name
        stamp = scene / ".made-by"
        if not stamp.exists() or stamp.read_text() != made_by(options):
            print(f"-- making scene {name}: {options}", file=sys.stderr, flush=True)
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            subprocess.run([sys.executable, HERE / "scenes.py", scene, *options.split()], check=True, env=environment,
                           stdout=subprocess.DEVNULL)
            stamp.write_text(made_by(options))
        out[name] = scene
    return out


if __name__ == "__main__":
    wanted = {k: v for group in (STANDARD, PEERS, VARIANTS, NULL, RAW) for k, v in group.items()}
    make(pathlib.Path(sys.argv[1]), {k: v for k, v in wanted.items() if len(sys.argv) < 3 or k in sys.argv[2:]})
