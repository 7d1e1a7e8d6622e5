"""An alert as a scientist cuts on it.

Numbers that a packet does not have (null, or ZTF's sentinels -999 and -99999) are NaN here, so that every comparison with
them is false and no filter has to ask first. The record as it was sent is `alert.record`.
"""

from __future__ import annotations

import math
import zlib
from functools import cached_property
from typing import Any

import numpy as np

from .packet import PacketError, Record

NAN = math.nan
SENTINELS = (-999.0, -99999.0)
BANDS = {1: "g", 2: "r", 3: "i"}
MAG_PER_SNR = 2.5 / math.log(10)  # error of a magnitude times signal to noise
MJD_ZERO = 2400000.5

# The north galactic pole and the longitude of the north celestial pole, J2000 (Reid & Brunthaler 2004).
POLE_RA, POLE_DEC, POLE_L = math.radians(192.859508), math.radians(27.128336), math.radians(122.932)


def number(value: Any) -> float:
    """A number of a packet; NaN where it has none."""
    if value is None or isinstance(value, (str, bytes)):
        return NAN
    value = float(value)
    return NAN if value in SENTINELS else value


def _sign(value: Any) -> bool | None:
    return None if value is None else value in ("t", "1", "true", True)


class Epoch:
    """One visit of the alert's place: a detection, or a limiting magnitude where nothing was seen."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def jd(self) -> float:
        """Start of the exposure, JD (UTC)."""
        return number(self.record.get("jd"))

    @property
    def band(self) -> str:
        """`g`, `r`, `i`, or the number of another filter."""
        fid = self.record.get("fid")
        return BANDS.get(fid, str(fid))

    @property
    def detected(self) -> bool:
        """Whether something was seen."""
        return self.record.get("candid") is not None

    @property
    def mag(self) -> float:
        """Magnitude of the change."""
        return number(self.record.get("magpsf"))

    @property
    def mag_err(self) -> float:
        """Its error."""
        return number(self.record.get("sigmapsf"))

    @property
    def limit(self) -> float:
        """Magnitude that the exposure reached at 5 sigma."""
        return number(self.record.get("diffmaglim"))

    @property
    def positive(self) -> bool | None:
        """Whether the source was brighter than the reference."""
        return _sign(self.record.get("isdiffpos"))

    @property
    def ra(self) -> float:
        """Right ascension, degrees."""
        return number(self.record.get("ra"))

    @property
    def dec(self) -> float:
        """Declination, degrees."""
        return number(self.record.get("dec"))

    @property
    def reference_mag(self) -> float:
        """Magnitude of the nearest source of the reference."""
        return number(self.record.get("magnr"))

    @property
    def total_mag(self) -> float:
        """Magnitude of the source itself: reference and change together. For variable stars."""
        return total_mag(self.reference_mag, self.mag, self.positive)


def total_mag(reference: float, change: float, positive: bool | None) -> float:
    """Magnitude of reference and change together (Masci et al. 2019, section 6.5)."""
    flux = 10 ** (-0.4 * reference) + (1 if positive else -1) * 10 ** (-0.4 * change)
    return -2.5 * math.log10(flux) if flux > 0 else NAN


class Alert(Epoch):
    """A decoded packet. `alert["candidate"]["magpsf"]` works as well as `alert.mag`."""

    __slots__ = ("packet", "headers", "__dict__")

    def __init__(self, packet: Record, headers: dict[str, bytes] | None = None) -> None:
        candidate = packet.get("candidate")
        if not isinstance(candidate, dict):
            raise PacketError("the packet has no candidate: it is not of ZTF's schema")
        super().__init__(candidate)
        self.packet = packet
        self.headers = headers or {}

    def __getitem__(self, name: str) -> Any:
        return self.packet[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A part of the packet by its name."""
        return self.packet.get(name, default)

    @property
    def candid(self) -> int:
        """Number of the alert."""
        return self.packet["candid"]

    @property
    def object_id(self) -> str:
        """Name of the object."""
        return self.packet["objectId"]

    @property
    def mjd(self) -> float:
        """Start of the exposure, MJD (UTC)."""
        return self.jd - MJD_ZERO

    @property
    def snr(self) -> float:
        """Signal to noise of the change, positive also for what faded: `scorr`, else of the magnitude's error."""
        scorr = abs(number(self.record.get("scorr")))
        return MAG_PER_SNR / self.mag_err if math.isnan(scorr) and self.mag_err > 0 else scorr

    @property
    def elongation(self) -> float:
        """Long axis over short axis."""
        return number(self.record.get("elong"))

    @property
    def ellipticity(self) -> float:
        """One minus short axis over long axis: 0 is round."""
        elongation = self.elongation
        return 1 - 1 / elongation if elongation > 0 else NAN

    @property
    def fwhm(self) -> float:
        """Full width at half maximum, pixels."""
        return number(self.record.get("fwhm"))

    @property
    def real_bogus(self) -> float:
        """0 bogus to 1 real: of the network (`drb`) where there is one, else `rb`."""
        score = number(self.record.get("drb"))
        return number(self.record.get("rb")) if math.isnan(score) else score

    @property
    def bad_pixels(self) -> float:
        """Bad pixels near the source."""
        return number(self.record.get("nbad"))

    @property
    def star_distance(self) -> float:
        """Distance of the nearest catalogued source, arcsec."""
        return number(self.record.get("distpsnr1"))

    @property
    def star_score(self) -> float:
        """Its likeness to a star: 0 galaxy to 1 star."""
        return number(self.record.get("sgscore1"))

    @property
    def reference_distance(self) -> float:
        """Distance of the nearest source of the reference, pixels."""
        return number(self.record.get("distnr"))

    @property
    def asteroid_distance(self) -> float:
        """Distance of the nearest known solar-system body, arcsec; NaN where none is near."""
        distance = number(self.record.get("ssdistnr"))
        return distance if distance >= 0 else NAN

    @property
    def detections(self) -> int:
        """How often the object was detected, this time included."""
        return int(self.record.get("ndethist") or 0)

    @cached_property
    def history(self) -> list[Epoch]:
        """Earlier epochs of the place, oldest first: detections and limits of the last 30 days."""
        return sorted((Epoch(one) for one in self.packet.get("prv_candidates") or []), key=lambda epoch: epoch.jd)

    @cached_property
    def light_curve(self) -> list[Epoch]:
        """Detections, oldest first, this one last."""
        return [epoch for epoch in self.history if epoch.detected] + [self]

    def colour(self, blue: str = "g", red: str = "r", within_days: float = 1.0) -> float:
        """Difference of two bands: the latest pair of detections not further apart than `within_days`."""
        blues = [epoch for epoch in self.light_curve if epoch.band == blue]
        reds = [epoch for epoch in self.light_curve if epoch.band == red]
        pairs = [(b, r) for b in blues for r in reds if abs(b.jd - r.jd) <= within_days]
        if not pairs:
            return NAN
        b, r = max(pairs, key=lambda pair: (min(pair[0].jd, pair[1].jd), -abs(pair[0].jd - pair[1].jd)))
        return b.mag - r.mag

    @cached_property
    def galactic(self) -> tuple[float, float]:
        """Galactic longitude and latitude, degrees."""
        ra, dec = math.radians(self.ra) - POLE_RA, math.radians(self.dec)
        sine = math.sin(dec) * math.sin(POLE_DEC) + math.cos(dec) * math.cos(POLE_DEC) * math.cos(ra)
        around = math.atan2(
            math.cos(dec) * math.sin(ra),
            math.sin(dec) * math.cos(POLE_DEC) - math.cos(dec) * math.sin(POLE_DEC) * math.cos(ra),
        )
        return math.degrees(POLE_L - around) % 360, math.degrees(math.asin(max(-1.0, min(1.0, sine))))

    @cached_property
    def science(self) -> np.ndarray:
        """Cut-out of the exposure, rows from the bottom; NaN off the frame."""
        return self._cutout("cutoutScience")

    @cached_property
    def template(self) -> np.ndarray:
        """Cut-out of the reference."""
        return self._cutout("cutoutTemplate")

    @cached_property
    def difference(self) -> np.ndarray:
        """Cut-out of the difference: what faded is positive in it too."""
        return self._cutout("cutoutDifference")

    def _cutout(self, name: str) -> np.ndarray:
        stamp = self.packet.get(name)
        if not stamp:
            raise PacketError(f"the packet has no {name}")
        return picture(stamp["stampData"])


TYPES = {-64: ">f8", -32: ">f4", 8: "u1", 16: ">i2", 32: ">i4"}


def picture(stamp: bytes) -> np.ndarray:
    """The image of a FITS file, gzipped or not, as floats."""
    try:
        data = zlib.decompress(stamp, 31) if stamp[:2] == b"\x1f\x8b" else stamp
    except zlib.error as error:
        raise PacketError(f"the cut-out does not unpack: {error}") from error
    cards: dict[str, str] = {}
    for at in range(0, len(data) - 79, 80):
        card = data[at : at + 80].decode("ascii", "replace")
        if card[:8] == "END     ":
            break
        if card[8:10] == "= ":
            cards[card[:8].strip()] = card[10:].split("/")[0].strip()
    else:
        raise PacketError("the cut-out is no FITS file")
    start = (at // 2880 + 1) * 2880
    try:
        width, height, kind = int(cards["NAXIS1"]), int(cards["NAXIS2"]), TYPES[int(cards["BITPIX"])]
        pixels = np.frombuffer(data, dtype=kind, count=width * height, offset=start).reshape(height, width)
    except (KeyError, ValueError) as error:
        raise PacketError(f"the cut-out is no FITS image: {error}") from error
    zero, scale = float(cards.get("BZERO", 0)), float(cards.get("BSCALE", 1))
    return pixels.astype(np.float32) * np.float32(scale) + np.float32(zero)
