"""Supernova candidates within days of the explosion.

The cuts follow what surveys use against bogus, stars, asteroids and old variables (Perley et al. 2020, section 2; Förster et
al. 2021): real, positive, away from the galactic plane, no star underneath, not known for long, seen twice so that it does
not move, and with a limit below it not long before.
"""

from nightjar_filters import Alert, AlertFilter

YOUNG_DAYS = 6.0
LIMIT_DAYS = 5.0


class YoungSupernovae(AlertFilter):
    """The label says how many hours after the last non-detection the source was first seen."""

    def filter(self, alert: Alert) -> str | bool:
        if not (alert.positive and alert.real_bogus > 0.6 and alert.bad_pixels == 0 and alert.snr > 6):
            return False
        if abs(alert.galactic[1]) < 10 or alert.ellipticity > 0.4 or alert.asteroid_distance < 15:
            return False
        if alert.star_distance < 1.5 and alert.star_score > 0.65:
            return False
        first = alert.light_curve[0]
        if not 0.02 < alert.jd - first.jd < YOUNG_DAYS:
            return False
        if not all(epoch.positive for epoch in alert.light_curve):
            return False
        limits = [e for e in alert.history if not e.detected and e.jd < first.jd and e.limit > first.mag + 0.3]
        if not limits or first.jd - limits[-1].jd > LIMIT_DAYS:
            return False
        return f"{(first.jd - limits[-1].jd) * 24:.1f} h"
