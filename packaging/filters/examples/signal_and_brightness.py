"""The plain cut: a clear signal, and bright enough for a spectrum on a telescope of 2 m."""

from nightjar_filters import Alert, AlertFilter


class Filter001(AlertFilter):
    """Signal to noise above 10, brighter than 19 mag."""

    def filter(self, alert: Alert) -> bool:
        return alert.snr > 10 and alert.mag < 19
