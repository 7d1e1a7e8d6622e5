"""Fast movers: near-Earth objects that leave a trail in one exposure, or are new points that nobody knows."""

from nightjar_filters import Alert, AlertFilter


class FastMovers(AlertFilter):
    """`trail` for a long source, `point` for a new one on blank sky that no catalogue of orbits has."""

    def filter(self, alert: Alert) -> str | bool:
        if not (alert.positive and alert.real_bogus > 0.5 and alert.snr > 7):
            return False
        if alert.asteroid_distance < 30:
            return False  # somebody has its orbit
        if len(alert.light_curve) > 1:
            return False  # it was here before
        if alert.ellipticity > 0.5 and alert.record.get("aimage", 0) > 2.5 * alert.record.get("bimage", 1e9):
            return "trail"
        lonely = not alert.star_distance < 5 and not alert.reference_distance < 5
        return "point" if lonely and alert.ellipticity < 0.25 else False
