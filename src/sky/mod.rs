//! A synthetic night with a truth table; shares no PSF, resampling or WCS code with the pipeline.
