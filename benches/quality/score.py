#!/usr/bin/env python3
"""Holds what was found against what there was.

    score.py SCENE RUN [SCENE RUN]... [--json FILE] [--list] [--threshold S/N] [--swapped]

SCENE is a folder of scenes.py, RUN one with a candidates.csv (an empty `rejected` makes an alert).
All scenes are pooled. A change is found when an alert lies within 1.5 px of it, the nearest pairs
first; alerts that belong to no change are false, and are "on defects" within 5 px of a cosmic ray, hot
pixel or bad column or within 10 px of a saturated pixel of either frame. Changes near defects and
trails are counted apart: they are neither missed nor false.

Position rms is per axis over matched changes, without those beyond eight times their ideal error and 0.1 px
(how many is told). Flux bias and scatter are of found/true - 1 at S/N >= 50: median and 1.4826 MAD, and mean
and standard deviation. Pulls are (found - true) / stated error, 1.4826 MAD and plain.
"""

import argparse
import csv
import json
import math
import pathlib
import sys

import numpy as np
from astropy.io import fits
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from scipy.special import ndtr

MATCH = 1.5
BINS = [("3-5", 3, 5), ("5-7", 5, 7), ("7-10", 7, 10), ("10-20", 10, 20), ("20+", 20, np.inf)]
# What the bars are: name, lowest, highest.
BARS = {
    "completeness 5-7": (0.76, 1.0), "completeness 7-10": (0.99, 1.0), "completeness 10-20": (0.998, 1.0),
    "completeness 20+": (0.998, 1.0), "false an image, off defects": (0, 5), "false an image, on stars": (0, 2),
    "false an image, on defects": (0, 2), "flux bias %": (-0.5, 0.5), "flux scatter %": (0, 0.75),
    "pull 7-20": (0.9, 1.15), "pull 20-100": (0, 1.1), "pull 100+": (0, 1.2),
    "position rms px, S/N >= 20": (0, 0.025), "position rms px, S/N >= 100": (0, 0.0085), "wrong signs": (0, 0),
}


def rows_of(path):
    """The lines of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def robust(values):
    """1.4826 times the median absolute deviation."""
    values = np.asarray(values, float)
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def significance(candidate):
    """What the detection's threshold is about: `scorr` where there is such a column, else `snr`."""
    return abs(float(candidate.get("scorr") or candidate["snr"]))


class Pair:
    """One exposure: its truth, its candidates, and who belongs to whom."""

    def __init__(self, name, scene, about, truth, candidates, marks, swapped=False, threshold=0.0):
        self.name, self.about, self.truth, self.candidates = name, about, truth, candidates
        self.stars = rows_of(scene / "stars.csv")
        self.star_xy = np.array([(float(r["x"]), float(r["y"])) for r in self.stars]).reshape(-1, 2)
        self.star_mag = np.array([float(r["mag"]) for r in self.stars])
        place = ("rx", "ry") if swapped else ("x", "y")
        self.xy = np.array([(float(r[place[0]]), float(r[place[1]])) for r in truth]).reshape(-1, 2)
        self.flux = np.array([float(r["flux"]) for r in truth]) * (-1 if swapped else 1)
        self.snr = np.array([float(r["snr"]) for r in truth])
        self.error = np.array([float(r["error"]) for r in truth])
        self.place_error = np.array([(float(r["error_x"]), float(r["error_y"])) for r in truth]).reshape(-1, 2)
        self.scored = np.array([r["scored"] == "1" for r in truth], bool)
        self.trail = np.array([r["kind"] == "trail" for r in truth], bool)
        self.alerts = [c for c in candidates if not c["rejected"] and significance(c) >= threshold]
        self.alert_xy = np.array([(float(c["x"]), float(c["y"])) for c in self.alerts]).reshape(-1, 2)
        self.far = distance_transform_edt(marks & 7 == 0) if (marks & 7).any() else np.full(marks.shape, 1e9)
        self.far_saturated = distance_transform_edt(marks & 24 == 0) if (marks & 24).any() else np.full(marks.shape, 1e9)
        self._match()

    def _match(self):
        """Nearest pairs first; then alerts along trails."""
        self.alert_of = np.full(len(self.truth), -1)
        owner = np.full(len(self.alerts), -1)
        if len(self.alerts) and len(self.truth):
            points = np.nonzero(~self.trail)[0]
            pairs = []
            if points.size:
                tree = cKDTree(self.alert_xy)
                for t in points:
                    for a in tree.query_ball_point(self.xy[t], MATCH):
                        pairs.append((np.hypot(*(self.alert_xy[a] - self.xy[t])), t, a))
            for _, t, a in sorted(pairs):
                if self.alert_of[t] < 0 and owner[a] < 0:
                    self.alert_of[t], owner[a] = a, t
            for t in np.nonzero(self.trail)[0]:
                length, angle = float(self.truth[t]["length"]), float(self.truth[t]["angle"])
                c, s = np.cos(angle), np.sin(angle)
                d = self.alert_xy - self.xy[t]
                along, across = d[:, 0] * c + d[:, 1] * s, -d[:, 0] * s + d[:, 1] * c
                near = (np.abs(along) < length / 2 + 4) & (np.abs(across) < 4) & (owner < 0)
                if near.any():
                    first = int(np.nonzero(near)[0][np.argmin(np.hypot(*d[near].T))])
                    self.alert_of[t] = first
                    owner[near] = t
        self.false = np.nonzero(owner < 0)[0]
        self.where = [self._where(*self.alert_xy[a]) for a in self.false]

    def _where(self, x, y):
        """What a false alert stands on."""
        rows, columns = self.far.shape
        j, i = int(np.clip(round(y) - 1, 0, rows - 1)), int(np.clip(round(x) - 1, 0, columns - 1))
        if self.far[j, i] <= 5 or self.far_saturated[j, i] <= 10:
            return "defect"
        star, distance, mag = self.nearest_star(x, y, limit=20.0)
        return "star" if distance <= 3.5 else "sky"

    def detected_on_defects(self):
        """Lines of the table on defects and away from changes, rejected ones included."""
        every = np.array([(float(c["x"]), float(c["y"])) for c in self.candidates]).reshape(-1, 2)
        if not len(every):
            return 0
        away = cKDTree(self.xy).query(every)[0] > 3 if len(self.xy) else np.ones(len(every), bool)
        return sum(self._where(x, y) == "defect" for x, y in every[away])

    def nearest_star(self, x, y, limit=99.0):
        """Index, distance and magnitude of the nearest star brighter than `limit`."""
        bright = np.nonzero(self.star_mag < limit)[0]
        if not bright.size:
            return -1, np.inf, np.nan
        d = np.hypot(*(self.star_xy[bright] - (x, y)).T)
        k = int(np.argmin(d))
        return int(bright[k]), float(d[k]), float(self.star_mag[bright[k]])


def load(scene, run, swapped=False, threshold=0.0):
    """The pairs of one scene and one run of it."""
    scene, run = pathlib.Path(scene), pathlib.Path(run)
    about = json.loads((scene / "scene.json").read_text())
    truth, candidates = rows_of(scene / "truth.csv"), rows_of(run / "candidates.csv")
    if not about["raw"]:
        return [Pair(scene.name, scene, about, truth, candidates, fits.getdata(scene / "defects.fits.gz"), swapped, threshold)]
    # Exposures in the order of their names, which begin with their time.
    names = [e["exposure"] for e in about["exposures"]]
    summary = run / "summary.json"
    if summary.exists():
        found = [e["exposure"] for e in json.loads(summary.read_text())["exposures"]]
    else:
        found = sorted({c["exposure"] for c in candidates})
    found = [e for e in found if "light" in e or len(found) == len(names)] or found
    return [Pair(f"{scene.name}/{name}", scene, about, [r for r in truth if r["exposure"] == name],
                 [c for c in candidates if c["exposure"] == e], fits.getdata(scene / f"defects-{name}.fits.gz"), swapped, threshold)
            for name, e in zip(names, sorted(found))]


def clipped_rms(dx, dy, error):
    """Rms per axis without what lies beyond eight ideal errors (and 0.1 px), and how many those are."""
    if not len(dx):
        return float("nan"), 0
    near = np.maximum(np.abs(dx), np.abs(dy)) <= np.maximum(8 * error, 0.1)
    return float(np.sqrt(np.mean(np.r_[dx[near], dy[near]] ** 2))), int((~near).sum())


def figures(pairs):
    """All figures of the pooled pairs."""
    out = {"images": len(pairs), "changes": int(sum(p.scored.sum() for p in pairs))}
    snr = np.concatenate([p.snr[p.scored] for p in pairs])
    found = np.concatenate([p.alert_of[p.scored] >= 0 for p in pairs])
    for name, low, high in BINS:
        inside = (snr >= low) & (snr < high)
        out[f"completeness {name}"] = float(found[inside].mean()) if inside.any() else float("nan")
        out[f"count {name}"] = int(inside.sum())
    out.update(ideal(pairs))
    trails = np.concatenate([p.alert_of[p.trail] >= 0 for p in pairs])
    out["trails found"], out["trails"] = int(trails.sum()), int(trails.size)
    kinds = [w for p in pairs for w in p.where]
    n = max(len(pairs), 1)
    out["false an image, off defects"] = sum(w != "defect" for w in kinds) / n
    out["false an image, on stars"] = sum(w == "star" for w in kinds) / n
    out["false an image, on defects"] = sum(w == "defect" for w in kinds) / n
    out["detected an image, on defects"] = sum(p.detected_on_defects() for p in pairs) / n
    true, got, error, dx, dy, s, place = [], [], [], [], [], [], []
    for p in pairs:
        for t in np.nonzero(p.scored & (p.alert_of >= 0))[0]:
            a = p.alerts[p.alert_of[t]]
            true.append(p.flux[t])
            sign = 1 if a.get("positive", "t").lower().startswith("t") else -1
            flux = float(a["flux"])
            got.append(flux if flux * sign > 0 or sign > 0 else -flux)
            error.append(float(a["flux_err"]) if a.get("flux_err") not in ("", None) else np.nan)
            dx.append(float(a["x"]) - p.xy[t, 0])
            dy.append(float(a["y"]) - p.xy[t, 1])
            s.append(p.snr[t])
            place.append(p.place_error[t].max())
    true, got, error, dx, dy, s, place = (np.array(v, float) for v in (true, got, error, dx, dy, s, place))
    out["wrong signs"] = int(np.sum(true * got < 0))
    ratio = (got / true - 1)[s >= 50]
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size:
        out["flux bias %"], out["flux scatter %"] = 100 * float(np.median(ratio)), 100 * robust(ratio)
        out["flux mean %"], out["flux standard deviation %"] = 100 * float(ratio.mean()), 100 * float(ratio.std())
    out["count S/N >= 50"] = int(ratio.size)
    pull = (got - true) / error
    for name, low, high in (("7-20", 7, 20), ("20-100", 20, 100), ("100+", 100, np.inf)):
        inside = (s >= low) & (s < high) & np.isfinite(pull)
        if inside.any():
            out[f"pull {name}"], out[f"plain pull {name}"] = robust(pull[inside]), float(pull[inside].std())
            out[f"mean pull {name}"] = float((pull * np.sign(true))[inside].mean())
    for low in (20, 100):
        inside = s >= low
        rms, away = clipped_rms(dx[inside], dy[inside], place[inside])
        out[f"position rms px, S/N >= {low}"], out[f"clipped positions, S/N >= {low}"] = rms, away
        if inside.any():
            out[f"position mean px, S/N >= {low}"] = [float(np.median(dx[inside])), float(np.median(dy[inside]))]
    return out


def ideal(pairs):
    """What the matched filter with the true PSFs gets from these changes: the bars mean something beside it."""
    rng = np.random.default_rng(1)
    snr = np.concatenate([p.snr[p.scored] for p in pairs])
    place = np.concatenate([p.place_error[p.scored] for p in pairs])
    out = {}
    for name, low, high in BINS:
        inside = (snr >= low) & (snr < high)
        if inside.any():
            out[f"ideal completeness {name}"] = float(ndtr(snr[inside] - 5.0).mean())
    bright = snr[snr >= 50]
    if bright.size:
        draws = rng.normal(size=(200, bright.size)) / bright
        out["ideal flux scatter %"] = 100 * robust(draws.ravel())
    for low in (20, 100):
        inside = snr >= low
        if inside.any():
            out[f"ideal position rms px, S/N >= {low}"] = float(np.sqrt(np.mean(place[inside] ** 2)))
    return out


def show(out, stream=sys.stdout):
    """The table with the bars."""
    for key, value in out.items():
        if isinstance(value, float):
            bar = BARS.get(key)
            verdict = "" if bar is None or np.isnan(value) else ("  ok" if bar[0] <= value <= bar[1] else f"  BAR {bar[0]} to {bar[1]}")
            count = out.get("count " + key.split(" ", 1)[1]) if key.startswith("completeness") else None
            print(f"{key:32s} {value:9.4f}{'' if count is None else f'  of {count}'}{verdict}", file=stream)
        elif not key.startswith("count "):
            print(f"{key:32s} {value}", file=stream)


def list_all(pairs, stream=sys.stdout):
    """Every missed change from S/N 7 on with what the table says near it, and every false alert."""
    for p in pairs:
        every = np.array([(float(c["x"]), float(c["y"])) for c in p.candidates]).reshape(-1, 2)
        print(f"== {p.name}: missed at S/N >= 7", file=stream)
        for t in np.nonzero(p.scored & (p.alert_of < 0) & (p.snr >= 7))[0]:
            r = p.truth[t]
            base = f" on mag {r['base_mag']}, {100 * p.flux[t] / float(r['base_flux']):+.1f} %" if float(r["base_flux"]) else ""
            near = ""
            if len(every):
                d = np.hypot(*(every - p.xy[t]).T)
                for k in np.argsort(d)[:2]:
                    if d[k] < 6:
                        c = p.candidates[k]
                        near += f"; {d[k]:.1f} px: S/N {c['snr']}, {c['rejected'] or 'ALERT'}, chi {c.get('chi', '')}"
            star = p.nearest_star(*p.xy[t])
            neighbours = np.hypot(*(p.star_xy - p.xy[t]).T)
            own = neighbours < 0.7 if r["kind"] == "variable" else neighbours < 0
            others = np.where(own, np.inf, neighbours)
            k = int(np.argmin(others)) if len(others) else -1
            print(f"{r['kind']:9s} ({p.xy[t,0]:.1f}, {p.xy[t,1]:.1f}) S/N {p.snr[t]:.1f} flux {p.flux[t]:.0f}{base};"
                  f" next star {others[k]:.1f} px mag {p.star_mag[k]:.1f}{near or '; nothing within 6 px'}", file=stream)
        print(f"== {p.name}: false alerts", file=stream)
        for a, where in zip(p.false, p.where):
            c = p.alerts[a]
            x, y = p.alert_xy[a]
            _, d, mag = p.nearest_star(x, y)
            _, d18, mag18 = p.nearest_star(x, y, 18.0)
            edge = min(x - 1, y - 1, p.far.shape[1] - x, p.far.shape[0] - y)
            print(f"{where:6s} ({x:.1f}, {y:.1f}) S/N {c['snr']} flux {c['flux']} {'+' if c.get('positive', 't') == 't' else '-'}"
                  f" chi {c.get('chi', '')}; nearest star {d:.1f} px mag {mag:.1f}; of mag < 18 {d18:.1f} px mag {mag18:.1f}; edge {edge:.0f} px", file=stream)


def without_nan(value):
    """What JSON has no number for becomes null."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main():
    """Scores runs."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", nargs="+", help="SCENE RUN [SCENE RUN]...")
    p.add_argument("--json", type=pathlib.Path, help="the figures also into this file")
    p.add_argument("--list", action="store_true", help="name what was missed and what is false")
    p.add_argument("--threshold", type=float, default=0.0, help="leave out alerts below this significance")
    p.add_argument("--swapped", action="store_true", help="the run took the reference for the science frame")
    o = p.parse_args()
    if len(o.folders) % 2:
        p.error("folders come in pairs: SCENE RUN")
    pairs = [pair for s, r in zip(o.folders[::2], o.folders[1::2]) for pair in load(s, r, o.swapped, o.threshold)]
    out = figures(pairs)
    show(out)
    if o.list:
        list_all(pairs)
    if o.json:
        o.json.write_text(json.dumps(without_nan(out), indent=1) + "\n")


if __name__ == "__main__":
    main()
