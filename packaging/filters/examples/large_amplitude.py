"""Variable stars of large amplitude: Miras, dwarf novae in outburst, R Coronae Borealis stars that fade."""

import math

from nightjar_filters import Alert, AlertFilter


class LargeAmplitude(AlertFilter):
    """A star of the reference that is now at least a magnitude brighter or fainter than it was."""

    def filter(self, alert: Alert) -> str | bool:
        if not (alert.real_bogus > 0.5 and alert.snr > 10 and alert.reference_distance < 1.5):
            return False
        if alert.star_distance < 2 and alert.star_score < 0.3:
            return False  # a galaxy: its nucleus, or a supernova in it
        amplitude = alert.reference_mag - alert.total_mag
        if math.isnan(amplitude):
            # Nothing is left of it: the reference and the change cancel within their errors.
            return "gone" if alert.positive is False else False
        return f"{amplitude:+.1f} mag" if abs(amplitude) > 1.0 else False
