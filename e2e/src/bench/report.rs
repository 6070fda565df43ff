//! What a benchmark has found: a table for people, and JSON for programs.

use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::Path;

/// Which way of a figure is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// Figures, in the order in which they were found; each is printed as it comes.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    metric: String,
    value: f64,
    unit: String,
    /// Who was measured in the same run, and what was found.
    peer: Option<(String, f64)>,
    ratio: Option<f64>,
}

impl Report {
    /// A figure that is compared with nothing.
    pub fn add(&mut self, metric: &str, value: f64, unit: &str) {
        self.push(metric, value, unit, None, None);
    }

    /// A figure beside that of `peer`, measured in the same run. The ratio is above 1 where ours is
    /// better.
    pub fn compare(
        &mut self,
        metric: &str,
        value: f64,
        unit: &str,
        better: Better,
        (peer, peer_value): (&str, f64),
    ) {
        let ratio = match better {
            Better::Higher => value / peer_value,
            Better::Lower => peer_value / value,
        };
        self.push(metric, value, unit, Some((peer.to_owned(), peer_value)), Some(ratio));
    }

    /// A figure that is the ratio of two others: `value` of ours by `peer_value` of the peer's.
    pub fn ratio(&mut self, metric: &str, value: f64, (peer, peer_value): (&str, f64)) {
        let ratio = value / peer_value;
        self.push(metric, ratio, "ratio", Some((peer.to_owned(), peer_value)), Some(ratio));
    }

    fn push(
        &mut self,
        metric: &str,
        value: f64,
        unit: &str,
        peer: Option<(String, f64)>,
        ratio: Option<f64>,
    ) {
        let row = Row { metric: metric.to_owned(), value, unit: unit.to_owned(), peer, ratio };
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// All figures, one a line, ours and the peer's side by side.
    pub fn table(&self) -> String {
        let head =
            format!("{:<36} {:>14} {:<10} {:>14}  peer", "metric", "value", "unit", "peer's");
        let rows = self.rows.iter().map(Row::line);
        [head].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }

    /// Writes `[{"metric", "value", "unit", "peer", "peer_value", "ratio"}, …]` and prints the table.
    /// A file with figures of other parts of the same benchmark keeps those.
    pub fn finish(self, path: &Path) -> anyhow::Result<()> {
        let mut rows = kept(path, &self.rows);
        rows.extend(self.rows.iter().map(Row::json));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).context("make the report's folder")?;
        }
        let lines: Vec<_> = rows.iter().map(|row| format!("  {row}")).collect();
        let text = format!("[\n{}\n]\n", lines.join(",\n"));
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}\nwritten to {}", self.table(), path.display());
        Ok(())
    }
}

/// Rows of an earlier run whose metrics are not among `fresh`.
fn kept(path: &Path, fresh: &[Row]) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let rows = serde_json::from_str::<Vec<Value>>(&text).unwrap_or_default();
    let stale = |row: &Value| fresh.iter().any(|it| row["metric"] == it.metric.as_str());
    rows.into_iter().filter(|row| !stale(row)).collect()
}

impl Row {
    fn line(&self) -> String {
        let Self { metric, value, unit, peer, ratio } = self;
        let ours = format!("{metric:<36} {:>14} {unit:<10}", figure(*value));
        match (peer, ratio) {
            (Some((name, value)), Some(ratio)) => {
                format!("{ours} {:>14}  {name} (ratio {})", figure(*value), figure(*ratio))
            }
            _ => ours,
        }
    }

    fn json(&self) -> Value {
        let (peer, peer_value) = self.peer.clone().unzip();
        json!({
            "metric": self.metric, "value": self.value, "unit": self.unit,
            "peer": peer, "peer_value": peer_value, "ratio": self.ratio,
        })
    }
}

/// With as many decimals as tell something.
fn figure(value: f64) -> String {
    match value.abs() {
        1_000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_whichever_way_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench/x.json");
        let mut report = Report::default();
        report.compare("rate", 200.0, "1/s", Better::Higher, ("peer", 100.0));
        report.compare("late", 2.0, "ms", Better::Lower, ("peer", 8.0));
        report.add("size", 5.0, "B");
        report.finish(&path).unwrap();
        let read = || -> Vec<Value> {
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
        };
        let rows = read();
        assert_eq!((&rows[0]["ratio"], &rows[1]["ratio"]), (&json!(2.0), &json!(4.0)));
        assert_eq!(
            rows[2],
            json!({"metric": "size", "value": 5.0, "unit": "B", "peer": null, "peer_value": null, "ratio": null})
        );

        let mut again = Report::default();
        again.ratio("size", 30.0, ("ceiling", 60.0));
        again.finish(&path).unwrap();
        let rows = read();
        assert_eq!((rows.len(), &rows[2]["value"]), (3, &json!(0.5)), "{rows:?}");
    }
}
