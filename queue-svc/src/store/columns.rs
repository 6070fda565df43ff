//! Columns of a row by name, whichever database it comes from.
//!
//! Where the type of a column is not ours to choose, the statement casts it: whole numbers come as 64
//! bits, everything else as text or bytes.

use sqlx::{ColumnIndex, Database, Decode, Result, Row, Type};

/// What may be read of a row.
///
/// # Errors
/// All of them fail if there is no such column, or it holds something else.
pub(super) trait Columns {
    fn number(&self, column: &str) -> Result<i64>;
    fn maybe_number(&self, column: &str) -> Result<Option<i64>>;
    fn text(&self, column: &str) -> Result<String>;
    fn maybe_text(&self, column: &str) -> Result<Option<String>>;
    fn bytes(&self, column: &str) -> Result<Vec<u8>>;

    /// A number that is a u32; what is none becomes the largest, which is refused as out of range.
    fn small(&self, column: &str) -> Result<u32> {
        Ok(u32::try_from(self.number(column)?).unwrap_or(u32::MAX))
    }

    /// A number that is not 0.
    fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.number(column)? != 0)
    }
}

impl<R: Row> Columns for R
where
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database>,
    for<'r> String: Decode<'r, R::Database>,
    for<'r> Vec<u8>: Decode<'r, R::Database>,
    i64: Type<R::Database>,
    String: Type<R::Database>,
    Vec<u8>: Type<R::Database>,
    R::Database: Database<Row = R>,
{
    fn number(&self, column: &str) -> Result<i64> {
        self.try_get(column)
    }

    fn maybe_number(&self, column: &str) -> Result<Option<i64>> {
        self.try_get(column)
    }

    fn text(&self, column: &str) -> Result<String> {
        self.try_get(column)
    }

    fn maybe_text(&self, column: &str) -> Result<Option<String>> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.try_get(column)
    }
}
