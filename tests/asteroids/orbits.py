"""Where asteroids are, without a line of Nightjar's: two bodies in double precision, the Earth and the observatory by astropy.

    orbits.py two-body ORBITS.json        places at the times, as JSON
    orbits.py perturbed ORBITS.json       the same with the planets' pull beside it, by numerical integration

ORBITS.json: {"site": [longitude, latitude, elevation], "times": [UTC as MJD], "orbits": [[epoch TT as MJD, M, w, node, i, e, a]]}.
"""

import json
import sys

import erfa
import numpy as np
from astropy.coordinates import EarthLocation, get_body_barycentric
from astropy.time import Time
from astropy.utils import iers
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

iers.conf.auto_download = False
iers.conf.iers_degraded_accuracy = "warn"
GAUSS = 0.01720209895
LIGHT = 173.1446326846693  # au a day
OBLIQUITY = np.radians(84381.448 / 3600)
# Sun over planet (IAU 2009 and the JPL ephemerides): Mercury, Venus, Earth and Moon, Mars to Neptune.
MASSES = [6023600.0, 408523.71, 328900.56, 3098708.0, 1047.3486, 3497.898, 22902.98, 19412.24]


def state(orbit, time):
    """Place and velocity from the Sun, equatorial, by rotation matrices and bisection: not as Nightjar does it."""
    epoch, mean, w, node, inclination, e, a = orbit
    motion = GAUSS * a**-1.5
    mean = (np.radians(mean) + motion * (time - epoch)) % (2 * np.pi)
    low, high = mean - e - 1e-3, mean + e + 1e-3
    for _ in range(80):
        middle = (low + high) / 2
        if middle - e * np.sin(middle) < mean:
            low = middle
        else:
            high = middle
    E = (low + high) / 2
    b = a * np.sqrt(1 - e * e)
    rate = motion / (1 - e * np.cos(E))
    place = np.array([a * (np.cos(E) - e), b * np.sin(E), 0])
    velocity = np.array([-a * np.sin(E) * rate, b * np.cos(E) * rate, 0])

    def turn_z(x):
        return np.array([[np.cos(x), -np.sin(x), 0], [np.sin(x), np.cos(x), 0], [0, 0, 1]])

    def turn_x(x):
        return np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])

    turn = turn_x(OBLIQUITY) @ turn_z(np.radians(node)) @ turn_x(np.radians(inclination)) @ turn_z(np.radians(w))
    return turn @ place, turn @ velocity


def observer(site, utc):
    """From the Sun, au."""
    time = Time(utc, format="mjd", scale="utc")
    earth = (get_body_barycentric("earth", time) - get_body_barycentric("sun", time)).xyz.to_value("au")
    location = EarthLocation.from_geodetic(*site)
    return earth + location.get_gcrs_posvel(time)[0].xyz.to_value("au"), time.tt.mjd


def seen(place_at, here, tt):
    light = 0.0
    for _ in range(6):
        towards = place_at(tt - light) - here
        light = np.linalg.norm(towards) / LIGHT
    x, y, z = towards
    return [np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y))), light * LIGHT]


def integrated(orbit, until):
    """The place at any time between the epoch and `until` under Sun and planets."""
    epoch = orbit[0]
    days = np.arange(min(epoch, until) - 5, max(epoch, until) + 5, 0.5)
    planets = [CubicSpline(days, erfa.plan94(2400000.5, days, n)["p"]) for n in range(1, 9)]

    def pull(time, y):
        r = y[:3]
        acceleration = -(GAUSS**2) * r / np.linalg.norm(r) ** 3
        for mass, planet in zip(MASSES, planets):
            p = planet(time)
            d = p - r
            acceleration += GAUSS**2 / mass * (d / np.linalg.norm(d) ** 3 - p / np.linalg.norm(p) ** 3)
        return np.concatenate([y[3:], acceleration])

    solution = solve_ivp(
        pull, (epoch, until), np.concatenate(state(orbit, epoch)), "DOP853", dense_output=True, rtol=1e-11, atol=1e-13
    )
    return lambda time: solution.sol(time)[:3]


what, file = sys.argv[1:]
asked = json.load(open(file))
places = []
for utc in asked["times"]:
    here, tt = observer(asked["site"], utc)
    row = []
    for orbit in asked["orbits"]:
        if what == "perturbed":
            place_at = integrated(orbit, tt)
        else:
            place_at = lambda time: state(orbit, time)[0]
        row.append(seen(place_at, here, tt))
    places.append(row)
print(json.dumps(places))
