//! On a real database.
