"""What a detector adds to the sky: cosmic rays, hot pixels, bad columns, full wells and bleed trails."""

import numpy as np

READ_NOISE = 10.0  # electrons
FULL_WELL = 340_000.0  # electrons
COSMIC_RAY, COLUMN, HOT, SATURATED, REFERENCE_SATURATED = 1, 2, 4, 8, 16
# A minimum-ionising particle frees about 80 electrons along a micrometre of silicon; pixels of 15 um
# across and 30 um deep.
ELECTRONS_A_PIXEL = 1200.0
DEPTH = 2.0


def _deposit(image, marks, xs, ys, charges, diffusion):
    """Adds charges at (xs, ys), each spread by a Gaussian of `diffusion` px."""
    from scipy.special import erf

    rows, columns = image.shape
    reach = 3
    x0, y0 = int(np.floor(xs.min())) - reach, int(np.floor(ys.min())) - reach
    x1, y1 = int(np.ceil(xs.max())) + reach + 1, int(np.ceil(ys.max())) + reach + 1
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, columns), min(y1, rows)
    if x0 >= x1 or y0 >= y1:
        return
    edge_x, edge_y = np.arange(x0, x1 + 1) - 0.5, np.arange(y0, y1 + 1) - 0.5
    k = 1 / (np.sqrt(2) * diffusion)
    gx = np.diff(0.5 * erf((edge_x[None, :] - xs[:, None]) * k), axis=1)
    gy = np.diff(0.5 * erf((edge_y[None, :] - ys[:, None]) * k), axis=1)
    charge = np.einsum("n,ny,nx->yx", charges, gy, gx)
    image[y0:y1, x0:x1] += charge
    marks[y0:y1, x0:x1] |= np.where(charge > 20.0, COSMIC_RAY, 0).astype(np.uint8)


def cosmic_rays(image, marks, count, rng):
    """Spots, straight tracks, and worms of slow electrons that scatter; charge like Landau's law.

    A quarter of the spots and worms are electrons that gamma rays set free: any charge from 250 up.
    """
    rows, columns = image.shape
    for _ in range(count):
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        shape = rng.uniform()
        diffusion = rng.uniform(0.15, 0.45)
        if shape < 0.35:  # steep incidence: one to four pixels
            length, bend = rng.uniform(0, 1.5), 0.0
        elif shape < 0.8:  # a muon
            length, bend = min(1.5 + rng.exponential(9.0), 120.0), 0.0
        else:  # a worm
            length, bend = rng.uniform(4, 30), 0.35
        steps = max(int(length / 0.25), 1)
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(size=steps)) * bend
        xs = x + np.cumsum(np.cos(angles)) * length / steps
        ys = y + np.cumsum(np.sin(angles)) * length / steps
        charge = ELECTRONS_A_PIXEL * np.hypot(length, DEPTH) * rng.lognormal(0, 0.5)
        if bend > 0 or length < 1.5:
            charge = min(charge, np.exp(rng.uniform(np.log(250), np.log(4e4)))) if rng.uniform() < 0.25 else charge
        a_step = charge / steps
        charges = a_step * rng.lognormal(0, 0.4, size=steps)
        _deposit(image, marks, xs, ys, charges, diffusion)


def hot_pixels(image, marks, count, rng):
    """Single pixels with extra charge, 150 to 30,000 electrons."""
    rows, columns = image.shape
    ys, xs = rng.integers(0, rows, count), rng.integers(0, columns, count)
    np.add.at(image, (ys, xs), np.exp(rng.uniform(np.log(150), np.log(3e4), count)))
    marks[ys, xs] |= HOT


def bad_columns(image, marks, rng, count=5):
    """Dead, weak and bright columns, from a random row to the upper edge or all along; one is two wide."""
    rows, columns = image.shape
    for k in range(count):
        x = int(rng.integers(20, columns - 20))
        start = 0 if rng.uniform() < 0.5 else int(rng.integers(0, rows))
        for column in range(x, x + (2 if k == 0 else 1)):
            part = image[start:, column]
            if k % 3 == 0:
                part[:] = rng.normal(3.0, 10.0, part.size)
            elif k % 3 == 1:
                part *= rng.uniform(0.3, 0.8)
            else:
                part += rng.uniform(300, 5000)
            marks[start:, column] |= COLUMN


def bleed(image, full_well, marks, bit):
    """Lets charge above the full well run along its column, both ways, until it has found room."""
    rows = image.shape[0]
    ys, xs = np.nonzero(image > full_well)
    for x in np.unique(xs):
        column = image[:, x]
        excess = column - full_well
        at = np.nonzero(excess > 0)[0]
        for run in np.split(at, np.nonzero(np.diff(at) > 1)[0] + 1):
            extra = float(np.sum(np.maximum(column[run] - full_well, 0.0)))
            column[run] = np.minimum(column[run], full_well)
            marks[run, x] |= bit
            ends = [run[0] - 1, run[-1] + 1]
            while extra > 0 and (ends[0] >= 0 or ends[1] < rows):
                for side, step in ((0, -1), (1, 1)):
                    y = ends[side]
                    if not 0 <= y < rows or extra <= 0:
                        continue
                    room = max(full_well - column[y], 0.0)
                    taken = min(room, extra)
                    column[y] += taken
                    extra -= taken
                    marks[y, x] |= bit
                    ends[side] = y + step
