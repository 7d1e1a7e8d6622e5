//! The night: joins the stages by bounded channels and holds no arithmetic.
