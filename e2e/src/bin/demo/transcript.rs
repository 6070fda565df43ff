//! What was done, what should have come of it, what did.

use e2e::audio::{Reference, Span, Wav};
use std::fmt::Display;
use std::path::Path;

/// Correlation with the source from which a recording counts as clean.
pub(crate) const LIKENESS_MIN: f64 = 0.98;

#[derive(Default)]
pub(crate) struct Transcript {
    held: u32,
    failed: Vec<String>,
}

impl Transcript {
    pub(crate) fn heading(&self, text: &str) {
        println!("\n{text}");
        println!("    {:<52} {:<34} seen", "step", "expected");
    }

    /// Notes a step; whether it held.
    pub(crate) fn check(
        &mut self,
        step: &str,
        expected: &str,
        seen: impl Display,
        held: bool,
    ) -> bool {
        println!("  {} {step:<52} {expected:<34} {seen}", if held { "✓" } else { "✗" });
        match held {
            true => self.held += 1,
            false => self.failed.push(step.to_owned()),
        }
        held
    }

    /// Notes a step that can fail; what it gave.
    pub(crate) fn attempt<T: Display>(
        &mut self,
        step: &str,
        expected: &str,
        result: anyhow::Result<T>,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.check(step, expected, &value, true);
                Some(value)
            }
            Err(e) => {
                self.check(step, expected, format!("failed to {e:#}"), false);
                None
            }
        }
    }

    /// Notes that two things are the same.
    pub(crate) fn same<T: PartialEq + Display>(
        &mut self,
        step: &str,
        expected: T,
        seen: T,
    ) -> bool {
        let held = expected == seen;
        self.check(step, &expected.to_string(), seen, held)
    }

    /// Judges what was heard against its source, and puts both beside each other into `folder`.
    pub(crate) fn hear(
        &mut self,
        step: &str,
        heard: &[f32],
        source: &Wav,
        at_least_ms: u64,
        folder: &Path,
        name: &str,
    ) -> anyhow::Result<Span> {
        Wav::mono(e2e::audio::PHONE_RATE_HZ, heard.to_vec())
            .write(&folder.join(format!("{name}-heard.wav")))?;
        source.write(&folder.join(format!("{name}-source.wav")))?;
        let span = Reference::new(source).longest_span(heard);
        let (ms, correlation) = (span.duration_ms(), span.correlation);
        let expected = format!("similarity ≥ {LIKENESS_MIN} for ≥ {at_least_ms} ms");
        let held = correlation >= LIKENESS_MIN && ms >= at_least_ms;
        let seen = format!("{correlation:.4} for {ms} ms ({name}-heard.wav)");
        self.check(step, &expected, seen, held);
        Ok(span)
    }

    pub(crate) fn held(&self) -> bool {
        self.failed.is_empty() && self.held > 0
    }

    pub(crate) fn summary(&self) -> String {
        match self.failed.as_slice() {
            [] => format!("All {} steps held.", self.held),
            failed => {
                format!("{} steps held, {} did not: {}", self.held, failed.len(), failed.join("; "))
            }
        }
    }
}
