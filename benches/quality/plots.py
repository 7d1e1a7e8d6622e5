"""The pictures of the quality page."""

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from scipy.special import ndtr

COLOURS = {"nightjar": "tab:blue", "sfft-sep": "tab:orange", "sfft-sextractor": "tab:green", "swarp-sextractor": "tab:red"}
NAMES = {"nightjar": "Nightjar", "sfft-sep": "SFFT + sep", "sfft-sextractor": "SFFT + source-extractor",
         "swarp-sextractor": "SWarp, scaled, + source-extractor"}


def _finish(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def completeness(by_name, path):
    """Part of the changes that is found, against their true S/N. `by_name`: lists of scored pairs."""
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2))
    edges = np.array([3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 8, 9, 10, 13, 17, 25, 40, 80, 200, 700])
    s = np.geomspace(3, 700, 400)
    axis.plot(s, ndtr(s - 5), color="0.6", lw=1, label="ideal filter at 5 sigma")
    for name, pairs in by_name.items():
        snr = np.concatenate([p.snr[p.scored] for p in pairs])
        found = np.concatenate([p.alert_of[p.scored] >= 0 for p in pairs])
        bins = [(snr >= a) & (snr < b) for a, b in zip(edges, edges[1:])]
        x = [np.exp(np.log(snr[i]).mean()) for i in bins if i.sum() > 3]
        y = [found[i].mean() for i in bins if i.sum() > 3]
        axis.plot(x, y, "o-", ms=3.5, lw=1, color=COLOURS[name], label=NAMES[name])
    axis.set(xscale="log", xlabel="true S/N", ylabel="completeness", ylim=(0, 1.03))
    axis.set_xticks([3, 5, 7, 10, 20, 50, 100, 500], ["3", "5", "7", "10", "20", "50", "100", "500"])
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")
    _finish(figure, path)


def pulls(pairs, path):
    """(found - true) / stated error of all matched changes, against S/N and as a histogram."""
    snr, pull = [], []
    for p in pairs:
        for t in np.nonzero(p.scored & (p.alert_of >= 0) & (p.snr >= 7))[0]:
            a = p.alerts[p.alert_of[t]]
            snr.append(p.snr[t])
            pull.append((float(a["flux"]) - p.flux[t]) / float(a["flux_err"]))
    snr, pull = np.array(snr), np.array(pull)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.6), width_ratios=(3, 2))
    left.plot(snr, np.clip(pull, -6, 6), ".", ms=2, alpha=0.4)
    left.axhline(0, color="0.5", lw=0.8)
    left.set(xscale="log", xlabel="true S/N", ylabel="(found - true) / stated error", ylim=(-6.3, 6.3))
    left.grid(alpha=0.3)
    bins = np.linspace(-5, 5, 41)
    right.hist(np.clip(pull, -5, 5), bins, density=True, alpha=0.6)
    x = np.linspace(-5, 5, 200)
    right.plot(x, np.exp(-x * x / 2) / np.sqrt(2 * np.pi), color="0.3", lw=1)
    right.set(xlabel="pull", title=f"{pull.size} changes at S/N 7 and more", ylabel="density")
    right.title.set_fontsize(9)
    _finish(figure, path)


def roc(curves, path):
    """False alerts off defects an image against completeness at true S/N 5 to 10, as the threshold runs."""
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2))
    for name, points in curves.items():
        x, y = [max(p["false"], 0.3) for p in points], [p["completeness"] for p in points]
        axis.plot(x, y, "o-", ms=3.5, lw=1, color=COLOURS[name], label=NAMES[name])
        for p in points:
            if p["threshold"] in (4.0, 5.0, 6.0, 8.0):
                axis.annotate(f"{p['threshold']:.0f}", (max(p["false"], 0.3), p["completeness"]), fontsize=7,
                              textcoords="offset points", xytext=(4, -8))
    axis.set(xscale="log", xlabel="false alerts an image, off defects (0.3: none)", ylabel="completeness at true S/N 5 to 10",
             ylim=(0, 1.03))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower center", title="numbers: threshold in sigma", title_fontsize=7)
    _finish(figure, path)
