"""Trains `rb`, the score that is built into nightjar, on synthetic skies; half of them are spoiled.

    python3 packaging/realbogus/train.py --nightjar target/release/nightjar --work FOLDER

Makes calibrated pairs with `nightjar sky --pair`, of several seeings, densities and depths. Nightjar makes few false alerts of
them, so that half of the science images are spoiled in ways that real ones are: a warp that no smooth registration follows,
a PSF that changes within a hundred pixels, tracks and hits of particles, ghosts, hot and cold pixels, a satellite's streak.
A candidate is real where `truth.csv` has a change of its sign, and bogus where it has none near. Seeds below HELD_OUT
teach; the others only judge. Needs numpy and astropy. Writes `src/detect/real_bogus/weights.rs` and `figures.md`.
No packet of a survey takes part: the score is made of what Nightjar measures, which their packets do not hold.
"""

import argparse
import csv
import math
import pathlib
import subprocess
import sys

import numpy as np
from astropy.io import fits

HERE = pathlib.Path(__file__).resolve().parent
WEIGHTS = HERE.parents[1] / "src/detect/real_bogus/weights.rs"
VERSION = "nightjar-1"
HELD_OUT = 1000
INPUTS, FIRST, SECOND = 16, 24, 12
THRESHOLD = 0.55  # what Fink asks for
# FWHM of science and reference, stars on a megapixel, depth of the reference.
KINDS = [(2.6, 2.1, 500, 15), (1.9, 1.7, 1500, 15), (2.0, 2.8, 800, 8), (3.6, 2.4, 500, 20), (2.4, 2.4, 3000, 5), (4.8, 3.0, 800, 15)]


def spoil(image, random):
    """The image with artefacts; nothing that is in truth.csv moves by more than half a pixel."""
    height, width = image.shape
    noise = 1.4826 * np.median(np.abs(image - np.median(image)))
    y, x = np.mgrid[0:height, 0:width].astype(float)
    out = image.astype(float).copy()
    left = x < width / 2
    # A warp of a third of a pixel that changes within 60 to 150 pixels.
    length, phase, size = random.uniform(60, 150), random.uniform(0, 6), random.uniform(0.15, 0.5)
    shift = size * np.sin(2 * math.pi * (x + 0.7 * y) / length + phase)
    gradient = np.gradient(out, axis=1)
    out = np.where(left & (y > height / 2), out + shift * gradient, out)
    # A PSF that is broader in some places: diffusion.
    bump = np.exp(-(((x - 0.75 * width) / 120) ** 2 + ((y - 0.7 * height) / 120) ** 2))
    laplace = sum(np.roll(image, step, axis) for axis in (0, 1) for step in (-1, 1)) - 4 * image
    out += random.uniform(0.08, 0.2) * bump * laplace
    # Hits and tracks of particles.
    for _ in range(random.integers(40, 120)):
        cx, cy = random.uniform(10, width - 10), random.uniform(10, height - 10)
        steps, angle = int(random.exponential(3)) + 1, random.uniform(0, math.pi)
        charge = noise * 10 ** random.uniform(0.8, 2.0)
        for k in range(steps):
            px, py = cx + k * math.cos(angle), cy + k * math.sin(angle)
            for dx, dy, share in ((0, 0, 0.8), (1, 0, 0.07), (-1, 0, 0.05), (0, 1, 0.05), (0, -1, 0.03)):
                ix, iy = int(px) + dx, int(py) + dy
                if 0 <= ix < width and 0 <= iy < height:
                    out[iy, ix] += share * charge / math.sqrt(steps)
    # Hot and cold pixels and pairs of them.
    for _ in range(random.integers(40, 120)):
        ix, iy, n = random.integers(0, width - 1), random.integers(0, height), random.integers(1, 3)
        out[iy, ix : ix + n] += random.choice([-1, 1]) * noise * random.uniform(8, 60)
    # Ghosts: faint rings and discs, and their edges.
    for _ in range(random.integers(4, 10)):
        cx, cy, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(5, 30)
        inside = np.hypot(x - cx, y - cy)
        out += noise * random.uniform(0.5, 3) * ((inside < radius) & (inside > radius * random.uniform(0, 0.9)))
    # A satellite, and rows that were read with an offset.
    slope, start = random.uniform(-1, 1), random.uniform(0, height)
    across = np.abs(y - start - slope * (x - width / 2)) / math.hypot(1, slope)
    out += noise * random.uniform(1, 6) * np.exp(-0.5 * (across / random.uniform(0.8, 2)) ** 2)
    for _ in range(random.integers(0, 4)):
        row, from_x, length = random.integers(0, height), random.integers(0, width - 40), random.integers(4, 40)
        out[row, from_x : from_x + length] += random.choice([-1, 1]) * noise * random.uniform(2, 12)
    return out.astype(image.dtype)


def run(program, work, seed, side):
    """The candidates of one scene: (evidence, real, alert) a line."""
    scene, spoiled = work / f"scene-{seed}", seed % 2 == 1
    result = scene / "result"
    if not (result / "candidates.csv").exists():
        science, reference, stars, depth = KINDS[(seed // 2) % len(KINDS)]
        subprocess.run(
            [program, "sky", "--pair", "--out", scene, "--seed", str(seed), "--width", str(side), "--height", str(side)]
            + ["--fwhm", str(science), "--reference-fwhm", str(reference), "--reference-depth", str(depth)]
            + ["--stars", str(stars * side * side / 1e6)],
            check=True, capture_output=True,
        )
        if spoiled:
            with fits.open(scene / "science.fits", mode="update") as file:
                plane = next(hdu for hdu in file if hdu.data is not None and hdu.data.ndim == 2 and hdu.data.dtype.kind == "f")
                plane.data[...] = spoil(plane.data, np.random.default_rng(seed))
        subprocess.run(
            [program, "difference", scene / "science.fits", scene / "reference.fits", "--out", result, "--threshold", "4.5"],
            check=True, capture_output=True,
        )
        for name in ("science.fits", "reference.fits", "result/difference.fits", "result/score.fits"):
            (scene / name).unlink(missing_ok=True)
    with open(scene / "truth.csv") as file:
        truth = list(csv.DictReader(file))
    place = np.array([[float(t["x"]), float(t["y"]), float(t["trail"]), float(t["snr"]), float(t["flux"])] for t in truth])
    lines = []
    with open(result / "candidates.csv") as file:
        for c in csv.DictReader(file):
            if c["rejected"] in ("edge", "masked", "saturated"):
                continue
            distance = np.hypot(place[:, 0] - float(c["x"]), place[:, 1] - float(c["y"]))
            same = (place[:, 4] > 0) == (c["positive"] == "t")
            real = bool(np.any((distance < 1.5 + 0.5 * place[:, 2]) & same & (place[:, 3] > 3)))
            if not real and np.any((distance < 8 + 0.5 * place[:, 2]) & (place[:, 3] > 2)):
                continue  # beside a change: neither the one nor the other
            lines.append(([float(c[name]) for name in c if name.startswith("rb_")], real, c["rejected"] == ""))
    return lines


def forward(weights, x):
    a = np.maximum(x @ weights[0] + weights[1], 0)
    b = np.maximum(a @ weights[2] + weights[3], 0)
    return a, b, (b @ weights[4] + weights[5])[:, 0]


def train(x, y, seed, epochs):
    random = np.random.default_rng(seed)
    sizes = [(INPUTS, FIRST), (FIRST, SECOND), (SECOND, 1)]
    weights = [w for n, m in sizes for w in (random.normal(0, math.sqrt(2 / n), (n, m)), np.zeros(m))]
    # As much weight on all that is bogus as on all that is real.
    balance = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    step, batch = 0, 256
    for epoch in range(epochs):
        rate = 3e-3 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for chosen in np.array_split(random.permutation(len(x)), max(1, len(x) // batch)):
            # The same source, measured a little differently.
            inputs = x[chosen] + random.normal(0, 0.03, (len(chosen), INPUTS))
            a, b, out = forward(weights, inputs)
            error = ((1 / (1 + np.exp(-out)) - y[chosen]) * balance[chosen] / len(chosen))[:, None]
            at_b = (error @ weights[4].T) * (b > 0)
            at_a = (at_b @ weights[2].T) * (a > 0)
            slopes = [inputs.T @ at_a, at_a.sum(0), a.T @ at_b, at_b.sum(0), b.T @ error, error.sum(0)]
            step += 1
            for i, slope in enumerate(slopes):
                slope = slope + 1e-4 * weights[i]
                first[i] = 0.9 * first[i] + 0.1 * slope
                second[i] = 0.999 * second[i] + 0.001 * slope**2
                weights[i] -= rate * (first[i] / (1 - 0.9**step)) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
    return weights


def area(score, real):
    """Area under the ROC curve: how often a real candidate has the higher score of two."""
    order = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1.0
    n, m = real.sum(), (~real).sum()
    return (order[real].sum() - n * (n + 1) / 2) / (n * m)


def literal(value):
    text = f"{value:.4g}"
    return text if "." in text or "e" in text else text + ".0"


def rust(weights):
    def rows(w, b):
        lines = [", ".join(literal(v) for v in [*w[:, i], b[i]]) for i in range(w.shape[1])]
        return "".join(f"    [{line}],\n" for line in lines)

    text = "//! Written by `packaging/realbogus/train.py`: change nothing here.\n\n"
    text += f'/// `rbversion`.\npub const VERSION: &str = "{VERSION}";\n\n'
    text += f"pub static FIRST: [[f32; {INPUTS + 1}]; {FIRST}] = [\n{rows(weights[0], weights[1])}];\n\n"
    text += f"pub static SECOND: [[f32; {FIRST + 1}]; {SECOND}] = [\n{rows(weights[2], weights[3])}];\n\n"
    last = rows(weights[4], weights[5]).strip().rstrip(",")
    return text + f"pub static LAST: [f32; {SECOND + 1}] = {last};\n"


def figures(score, real, alert, spoiled):
    lines = ["| held-out candidates | real | bogus | ROC area | completeness at 0.55 | bogus left at 0.55 |", "| --- | --- | --- | --- | --- | --- |"]
    for name, chosen in (
        ("all that were measured, spoiled skies", spoiled),
        ("all that were measured, clean skies", ~spoiled),
        ("those that become alerts, spoiled skies", spoiled & alert),
        ("those that become alerts, clean skies", ~spoiled & alert),
    ):
        r, s = real[chosen], score[chosen]
        roc = f"{area(s, r):.4f}" if r.any() and (~r).any() else "-"
        kept = f"{(s[r] >= THRESHOLD).mean():.4f}" if r.any() else "-"
        left = f"{(s[~r] >= THRESHOLD).mean():.3f}" if (~r).any() else "-"
        lines.append(f"| {name} | {r.sum()} | {(~r).sum()} | {roc} | {kept} | {left} |")
    return "\n".join(lines)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--nightjar", required=True)
    ask.add_argument("--work", required=True, type=pathlib.Path, help="scenes are kept there, and made once")
    ask.add_argument("--scenes", type=int, default=40)
    ask.add_argument("--held-out", type=int, default=16)
    ask.add_argument("--side", type=int, default=768)
    ask.add_argument("--epochs", type=int, default=150)
    args = ask.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    sets = []
    for name, seeds in (("train", range(args.scenes)), ("held out", range(HELD_OUT, HELD_OUT + args.held_out))):
        lines, spoiled = [], []
        for seed in seeds:
            try:
                found = run(args.nightjar, args.work, seed, args.side)
            except subprocess.CalledProcessError as error:
                print(f"seed {seed}: {error.stderr.decode().strip()[-200:]}", file=sys.stderr)
                continue
            lines += found
            spoiled += [seed % 2 == 1] * len(found)
        x = np.array([line[0] for line in lines])
        real, alert = (np.array([line[i] for line in lines]) for i in (1, 2))
        print(f"{name}: {len(x)} candidates, {real.sum()} real, {(~real & alert).sum()} false alerts", flush=True)
        sets.append((x, real, alert, np.array(spoiled)))
    (x, real, alert, _), (test, truth, becomes, spoiled) = sets
    middle, scale = x.mean(0), x.std(0) + 1e-3
    weights = train((x - middle) / scale, real.astype(float), 1, args.epochs)
    # What standardises the inputs goes into the first layer, so that the program need not know it.
    weights[1] = weights[1] - (middle / scale) @ weights[0]
    weights[0] = weights[0] / scale[:, None]
    # Judged as it is written.
    weights = [np.vectorize(lambda v: float(literal(v)))(w) for w in weights]
    score = 1 / (1 + np.exp(-forward(weights, test)[2]))
    text = figures(score, truth, becomes, spoiled)
    print(text)
    (HERE / "figures.md").write_text(text + "\n")
    WEIGHTS.write_text(rust(weights))
    subprocess.run(["rustfmt", "--edition", "2024", WEIGHTS], check=True)


main()
