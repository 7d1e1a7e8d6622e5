#!/usr/bin/env python3
"""`make quality`: makes the held-out scenes, runs Nightjar and its peers, prints the tables, writes the page.

    report.py --nightjar PROGRAM --folder FOLDER [--data FOLDER] [--page FILE --pictures FOLDER]
              [--kept] [--quick]

--quick: one scene of 1024 x 1024 of a kind, no peers, no real frames, no page.
What fails a bar is shown as it is; the exit code is 0 whenever all figures could be had.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import resource
import subprocess
import sys

import numpy as np

import held_out
import score

HERE = pathlib.Path(__file__).parent
METHODS = ("sfft-sep", "swarp-sextractor")
# The bars of scenes that differ from the standard: false alerts twice as many, completeness 5 % less, bias 1 %.
VARIANT_BARS = {
    "completeness 5-7": (0.71, 1), "completeness 7-10": (0.94, 1), "completeness 10-20": (0.948, 1),
    "completeness 20+": (0.948, 1), "false an image, off defects": (0, 10), "false an image, on defects": (0, 4),
    "flux bias %": (-1, 1),
}


def kept(out, made_by, run):
    """What a run came to: from its folder where program and scene are still the same, else by running it."""
    out.mkdir(parents=True, exist_ok=True)
    stamp = out / ".came.json"
    if stamp.exists():
        before = json.loads(stamp.read_text())
        if before["made by"] == made_by:
            return before["came"]
    came = run()
    stamp.write_text(json.dumps({"made by": made_by, "came": came}))
    return came


def difference(nightjar, scene, out, threshold=None, swapped=False):
    """Runs `nightjar difference`; its seconds, or the sentence with which it refused."""
    frames = [scene / "science.fits", scene / "reference.fits"]
    words = [nightjar, "difference", *(reversed(frames) if swapped else frames), "--out", out]
    if threshold:
        words += ["--threshold", str(threshold)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"refused": "refused: " + said.split("was not subtracted: ")[-1]}
    (out / "difference.fits").unlink(missing_ok=True)
    found = re.search(r"register ([\d.]+) s, subtract ([\d.]+) s, detect ([\d.]+) s", done.stderr)
    return {"cpu": cpu, "seconds": [float(v) for v in found.groups()] if found else []}


def simulate(nightjar, scene, out):
    """Runs a raw night through the whole pipeline."""
    done = subprocess.run([str(nightjar), "simulate", str(scene / "frames"), "--out", str(out)], capture_output=True, text=True, check=False)
    return {} if done.returncode == 0 else {"refused": (done.stderr.strip().splitlines() or ["?"])[-1]}


def number(value, digits=3):
    """For a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def mark(value, bar):
    """The value, in bold where it misses the bar."""
    missed = value is not None and not np.isnan(value) and not bar[0] <= value <= bar[1]
    digits = 4 if bar[1] <= 0.03 and bar[1] > 0 else (1 if bar[1] >= 2 else 3)
    return f"**{number(float(value), digits)}**" if missed else number(float(value), digits)


def standard_table(figures):
    """One row a bar."""
    twins = {"flux scatter %": "ideal flux scatter %"}
    twins |= {f"position rms px, S/N >= {n}": f"ideal position rms px, S/N >= {n}" for n in (20, 100)}
    twins |= {f"completeness {n}": f"ideal completeness {n}" for n in ("5-7", "7-10", "10-20", "20+")}
    lines = ["| figure | bar | Nightjar | ideal filter |", "| --- | --- | --- | --- |"]
    for name, bar in score.BARS.items():
        value = figures.get(name)
        if value is None:
            continue
        limits = f">= {bar[0]}" if name.startswith("completeness") else (
            f"within {bar[1]}" if bar[0] < 0 else (f"{bar[0]} to {bar[1]}" if bar[0] > 0 else f"<= {bar[1]}"))
        lines.append(f"| {name} | {limits} | {mark(float(value), bar)} | {number(figures.get(twins.get(name)))} |")
    lines.append(f"| trails found | | {figures['trails found']} of {figures['trails']} | |")
    lines.append(f"| table lines on defects an image, before rejection | | {number(figures['detected an image, on defects'], 0)} | |")
    return lines


SHORT = [("completeness 5-7", "5-7"), ("completeness 7-10", "7-10"), ("completeness 10-20", "10-20"), ("completeness 20+", "20+"),
         ("false an image, off defects", "false"), ("false an image, on stars", "on stars"), ("false an image, on defects", "on defects"),
         ("flux bias %", "bias %"), ("flux scatter %", "scatter %"), ("pull 7-20", "pull 7-20"), ("pull 20-100", "20-100"),
         ("pull 100+", "100+"), ("position rms px, S/N >= 20", "rms px 20+"), ("position rms px, S/N >= 100", "100+")]


def wide_table(rows, bars):
    """One row a scene: (name, figures or a sentence)."""
    lines = ["| scene | " + " | ".join(short for _, short in SHORT) + " |", "| --- " * (len(SHORT) + 1) + "|"]
    for name, figures in rows:
        if isinstance(figures, str):
            lines.append(f"| {name} | {figures} " + "| " * len(SHORT) + "|")
            continue
        cells = []
        for key, _ in SHORT:
            value = figures.get(key)
            cells.append("-" if value is None else (mark(float(value), bars[key]) if key in bars
                                                    else number(float(value), 4 if "position" in key else 2)))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


class Report:
    """Collects tables and figures."""

    def __init__(self, options):
        self.o, self.lines, self.figures = options, [], {}
        self.program = hashlib.sha256(options.nightjar.read_bytes()).hexdigest()

    def made_by(self, scene, how=""):
        """What a run depends on."""
        return f"{self.program} {(scene / 'scene.json').stat().st_mtime} {how}"

    def say(self, *lines):
        """Prints, and keeps for the page."""
        for line in lines:
            print(line, flush=True)
        self.lines += lines

    def pair(self, name, scene, **how):
        """One run, scored: pairs, or the sentence with which it was refused."""
        out = self.o.folder / "runs" / name
        came = kept(out, self.made_by(scene, str(how)), lambda: difference(self.o.nightjar, scene, out, **how))
        if "refused" in came:
            return came["refused"], came
        return score.load(scene, out, swapped=how.get("swapped", False)), came

    def standard(self, scenes):
        """The scenes that the bars are about, pooled and one by one."""
        pooled, rows = [], []
        for name, scene in scenes.items():
            pairs, _ = self.pair(name, scene)
            rows.append((f"{name}: {held_out.STANDARD.get(name, held_out.QUICK.get(name))[1]}",
                         pairs if isinstance(pairs, str) else score.figures(pairs)))
            if not isinstance(pairs, str):
                pooled += pairs
        figures = score.figures(pooled)
        self.figures["standard"] = figures
        self.say(f"### {len(pooled)} standard scenes, {figures['changes']} scored changes", "", *standard_table(figures), "",
                 "Scene by scene:", "", *wide_table(rows, score.BARS), "")
        return pooled

    def variants(self, scenes, names):
        """Scenes of another kind."""
        rows = []
        for name, scene in scenes.items():
            pairs, _ = self.pair(name, scene)
            (self.o.folder / "runs" / name / "score.fits").unlink(missing_ok=True)
            figures = pairs if isinstance(pairs, str) else score.figures(pairs)
            self.figures[name] = figures
            rows.append((names[name][1], figures))
        self.say("### Other skies, other optics", "", "In bold: more than twice as many false alerts as the standard scenes may have "
                 "(10 off defects, 4 on them), completeness more than 5 % below its bar, flux bias above 1 %.", "",
                 *wide_table(rows, VARIANT_BARS), "")

    def evenness(self, scenes, pooled):
        """No region and no line of the frame is worse than the rest."""
        from astropy.io import fits

        scales, lines = [], []
        for name in scenes:
            path = self.o.folder / "runs" / name / "score.fits"
            if not path.exists():
                continue
            image = fits.getdata(path)
            marks = fits.getdata(scenes[name] / "defects.fits.gz")
            image = np.where((np.abs(image) < 4) & (image != 0), image, np.nan)
            part = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4]
            boxes = part.reshape(4, part.shape[0] // 4, 4, part.shape[1] // 4).swapaxes(1, 2).reshape(16, -1)
            scales += [float(1.4826 * np.nanmedian(np.abs(b - np.nanmedian(b)))) for b in boxes[:, ::7]]
            # The scale of each bin of 8 columns or rows against its neighbourhood: seams would stand out.
            for axis in (0, 1):
                n = image.shape[1 - axis] // 8
                view = np.moveaxis(image, 1 - axis, 0)[: 8 * n].reshape(n, -1)
                # Not the frame's border, where the reference ends, nor what the truth calls a bad column.
                good = ~(np.moveaxis(marks, 1 - axis, 0)[: 8 * n].reshape(n, -1) & 2 > 0).any(axis=1) if axis == 0 else np.ones(n, bool)
                good[:5] = good[-5:] = False
                profile = np.nanmean(np.minimum(np.abs(view[good]), 3.0), axis=1)
                lines += list(np.abs(profile / np.median(profile) - 1))
        if not scales:
            return
        xy = np.concatenate([p.xy[p.scored & (p.snr >= 7)] for p in pooled])
        found = np.concatenate([p.alert_of[p.scored & (p.snr >= 7)] >= 0 for p in pooled])
        worst = (2.0, 0, 0)
        for step in range(384, 513):
            near = (np.abs((xy + step / 2) % step - step / 2) < 8).any(axis=1)
            worst = min(worst, (float(found[near].mean()), step, int(near.sum())))
        self.figures["evenness"] = {"scales": [min(scales), max(scales)], "lines": [float(np.sqrt(np.mean(np.square(lines)))), float(max(lines))], "worst step": worst}
        self.say("### Evenness", "", f"Empty sky: the robust standard deviation of the score in sixteen regions a frame is {min(scales):.3f} to "
                 f"{max(scales):.3f}. Bands of eight rows or columns scatter about their frame's mean by {100 * np.sqrt(np.mean(np.square(lines))):.1f} %; the worst of {len(lines)} "
                 f"departs by {100 * max(lines):.1f} %. Along borders of blocks: of changes at S/N 7 and more {found.mean():.4f} are found everywhere. "
                 f"Within 8 px of the multiples of a step, the worst of 129 steps from 384 to 512 px is {worst[1]} px with {worst[0]:.4f} of "
                 f"{worst[2]} changes ({worst[2] * (1 - worst[0]):.0f} missed where {worst[2] * (1 - found.mean()):.1f} are expected; it was "
                 "picked as the worst, so some excess is chance).", "")

    def null(self, scene):
        """N = R plus fresh noise."""
        pairs, _ = self.pair("null", scene)
        if isinstance(pairs, str):
            self.say("### Nothing changed", "", pairs, "")
            return
        p = pairs[0]
        self.figures["null"] = {"alerts": len(p.alerts), "off defects": sum(w != "defect" for w in p.where)}
        self.say("### Nothing changed", "", f"N = R with fresh noise: {len(p.alerts)} alerts, {self.figures['null']['off defects']} of them "
                 "away from saturated stars. Chance alone makes about five peaks above 5 sigma an image of 9.46 Mpx.", "")

    def swapped(self, scene, forward):
        """N and R exchanged: what is found both ways, with the other sign."""
        pairs, _ = self.pair("swapped", scene, swapped=True)
        if isinstance(pairs, str):
            self.say("### N and R exchanged", "", pairs, "")
            return
        p, f = pairs[0], forward[0]
        there, back = f.alert_of >= 0, p.alert_of >= 0
        both = there & back & ~f.trail
        sign = [p.alerts[p.alert_of[t]]["positive"] != f.alerts[f.alert_of[t]]["positive"] for t in np.nonzero(both)[0]]
        strong = f.scored & (f.snr >= 7)
        self.figures["swapped"] = {"both": int(both.sum()), "other sign": int(sum(sign)),
                                   "only forward at S/N >= 7": int((there & ~back & strong).sum()),
                                   "only swapped at S/N >= 7": int((back & ~there & strong).sum())}
        self.say("### N and R exchanged", "", f"{int(both.sum())} changes found both ways, {int(sum(sign))} of them with the other sign; at S/N "
                 f"7 and more {self.figures['swapped']['only forward at S/N >= 7']} only forward, "
                 f"{self.figures['swapped']['only swapped at S/N >= 7']} only exchanged; false alerts off defects "
                 f"{sum(w != 'defect' for w in p.where)} against {sum(w != 'defect' for w in f.where)}.", "")

    def raw(self, scene):
        """Raw exposures through the whole pipeline."""
        out = self.o.folder / "runs" / "raw"
        came = kept(out, self.made_by(scene), lambda: simulate(self.o.nightjar, scene, out))
        self.say("### From raw frames", "")
        if came:
            self.say(came["refused"], "")
            return
        figures = score.figures(score.load(scene, out))
        self.figures["raw"] = figures
        self.say("Two exposures with bias, dark and flat frames through `nightjar simulate`:", "", *standard_table(figures), "")

    def peers(self, scene):
        """The same frames through other programs; completeness and false alerts as thresholds run."""
        runs, seconds = {}, {}
        out = self.o.folder / "runs" / "peers"
        came = kept(out / "nightjar", self.made_by(scene), lambda: difference(self.o.nightjar, scene, out / "nightjar", threshold=4.0))
        if "refused" not in came:
            runs["nightjar"], seconds["nightjar"] = out / "nightjar", came["cpu"]
        for method in METHODS:
            stamp, want = out / method / ".made-by", held_out.made_by((HERE / "peers.py").read_text()) + (scene / ".made-by").read_text()
            if self.o.kept:
                if not (out / method / "seconds.json").exists():
                    continue
            elif not stamp.exists() or stamp.read_text() != want:
                print(f"-- {method} on the peers' scene", file=sys.stderr, flush=True)
                done = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "peers.py"), "run", method, str(scene), str(out / method)],
                                      capture_output=True, text=True, check=False)
                if done.returncode:
                    print(done.stderr[-800:], file=sys.stderr)
                    continue
                stamp.write_text(want)
            runs[method] = out / method
            took = json.loads((out / method / "seconds.json").read_text())
            seconds[method] = took["cpu"]
        rows, curves, pairs5 = [], {}, {}
        import plots
        for name, run in runs.items():
            pairs5[name] = score.load(scene, run, threshold=5.0)
            figures = score.figures(pairs5[name])
            self.figures[f"peers {name}"] = figures | {"seconds": seconds[name]}
            rows.append((f"{plots.NAMES[name]}, {seconds[name]:.1f} s of CPU", figures))
            curves[name] = []
            # The peers list nothing below 5.
            for threshold in ((4.0, 4.5) if name == "nightjar" else ()) + (5.0, 5.5, 6.0, 7.0, 8.0, 10.0):
                p = score.load(scene, run, threshold=threshold)[0]
                inside = p.scored & (p.snr >= 5) & (p.snr < 10)
                curves[name].append({"threshold": threshold, "completeness": float((p.alert_of[inside] >= 0).mean()),
                                     "false": sum(w != "defect" for w in p.where)})
        self.say("### Peers on one scene (with an exact WCS, at 5 sigma)", "", *wide_table(rows, {}), "",
                 "Seconds are what all cores spent on the whole program, from files to candidates; `make bench` times the stages on "
                 "an idle machine.", "")
        return pairs5, curves

    def real(self):
        """Frames of telescopes."""
        import real

        if not self.o.data or not real.pairs(self.o.data):
            self.say("### Real frames", "", "Not run: no real frames here.", "")
            return
        results = real.run(self.o.nightjar, self.o.data, self.o.folder / "runs" / "real")
        seen = score.rows_of(HERE / "by_eye.csv") if (HERE / "by_eye.csv").exists() else []
        self.say("### Real frames", "", "| pair | result | kept candidates, each looked at |", "| --- | --- | --- |")
        for r in results:
            what = []
            for c in r["kept"]:
                name = next((s["what"] for s in seen if s["pair"] == r["pair"]
                             and np.hypot(float(s["x"]) - float(c["x"]), float(s["y"]) - float(c["y"])) < 2.5), "not looked at yet")
                what.append(f"({float(c['x']):.0f}, {float(c['y']):.0f}) S/N {float(c['snr']):.1f}{'' if c['positive'] == 't' else ' fading'}: {name}")
            came = f"refused: {r['refused'].split('was not subtracted: ')[-1]}" if r["refused"] else f"{len(r['kept'])} kept of {r['candidates']}"
            came += f"; brightening {r['brightening']}" if "brightening" in r else ""
            came += "".join(f"; warned: {w}" for w in r["warnings"])
            self.say(f"| {r['pair']} | {came} | {'; '.join(what)} |")
        self.say("")
        self.figures["real"] = results


def main():
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nightjar", type=pathlib.Path, required=True)
    p.add_argument("--folder", type=pathlib.Path, required=True, help="scenes and runs are kept here")
    p.add_argument("--data", type=pathlib.Path, help="real frames")
    p.add_argument("--page", type=pathlib.Path, help="the tables go between its marks")
    p.add_argument("--pictures", type=pathlib.Path)
    p.add_argument("--kept", action="store_true", help="take the scenes and the peers' runs that are there, and make none")
    p.add_argument("--quick", action="store_true")
    o = p.parse_args()
    for name in ("nightjar", "folder", "data", "page", "pictures"):
        if getattr(o, name):
            setattr(o, name, getattr(o, name).absolute())
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    report = Report(o)
    scenes = o.folder / "scenes"
    if o.quick:
        made = held_out.make(scenes, held_out.QUICK)
        report.standard({"quick": made["quick"]})
        report.variants({k: v for k, v in made.items() if k in ("quick-two-moffat", "quick-coma")}, held_out.QUICK)
        report.null(made["quick-null"])
        return

    def made(group):
        """Folders of the scenes of a group."""
        if not o.kept:
            return held_out.make(scenes, group)
        return {name: scenes / name for name in group if (scenes / name / "scene.json").exists()}

    standard = made(held_out.STANDARD)
    pooled = report.standard(standard)
    report.evenness(standard, pooled)
    report.variants(made(held_out.VARIANTS), held_out.VARIANTS)
    for scene in made(held_out.NULL).values():
        report.null(scene)
    report.swapped(standard["h1"], [p for p in pooled if p.name == "h1"])
    for scene in made(held_out.RAW).values():
        report.raw(scene)
    by_peer, curves = report.peers(made(held_out.PEERS)["peers"])
    report.real()
    if o.pictures:
        import plots

        plots.completeness({"nightjar": pooled} | {k: v for k, v in by_peer.items() if k != "nightjar"}, o.pictures / "completeness.png")
        plots.pulls(pooled, o.pictures / "pulls.png")
        plots.roc(curves, o.pictures / "false-alerts.png")
    (o.folder / "figures.json").write_text(json.dumps(report.figures, indent=1) + "\n")
    if o.page:
        text = o.page.read_text()
        head, rest = text.split("<!-- figures -->", 1)
        tail = rest.split("<!-- end of figures -->", 1)[1]
        o.page.write_text(head + "<!-- figures -->\n\n" + "\n".join(report.lines).rstrip() + "\n\n<!-- end of figures -->" + tail)


if __name__ == "__main__":
    main()
