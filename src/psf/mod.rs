//! Point-spread functions that vary over the field.
