//! Checks of `[forward]`.

use super::Findings;
use crate::config::raw::{RawForward, RawForwardRule};
use crate::forward::{ForwardRule, ForwardSettings, OwnAddresses, Template};
use crate::stream_pattern::StreamPattern;

/// What is forwarded; where we are ourselves is known later.
pub(super) fn check(f: &mut Findings<'_>, raw: &RawForward) -> ForwardSettings {
    ForwardSettings {
        rules: raw.rules.iter().map(|rule| check_rule(f, rule)).collect(),
        max: f.number("forward", "max", raw.max, 1..=10_000) as usize,
        stall: f.seconds("forward", "stall_seconds", raw.stall_seconds, 1..=600),
        open_api: raw.open_api,
        own: OwnAddresses::default(),
    }
}

fn check_rule(f: &mut Findings<'_>, raw: &RawForwardRule) -> ForwardRule {
    let mut rule = ForwardRule {
        streams: Vec::with_capacity(raw.streams.len()),
        to: Vec::with_capacity(raw.to.len()),
        verify_certificate: raw.verify_certificate,
    };
    if raw.streams.is_empty() || raw.to.is_empty() {
        let message = "an entry of forward.rules has no streams or no addresses: write { streams = [\"live/*\"], to = [\"rtmp://other.example/live/[stream]\"] }";
        f.add("forward", "rules", message.to_owned());
    }
    for text in &raw.streams {
        match StreamPattern::parse(text) {
            Some(pattern) => rule.streams.push(pattern),
            None => f.add(
                "forward",
                "rules",
                format!("bad value {text:?} for streams in forward.rules: write a stream (\"live/cam\") or a pattern (\"live/*\")"),
            ),
        }
    }
    for (n, text) in raw.to.iter().enumerate() {
        match Template::parse(text) {
            Ok(template) => rule.to.push(template),
            // The address may hold a key, and this goes to the log.
            Err(error) => {
                f.add("forward", "rules", format!("bad value for to in forward.rules, address {}: {error}", n + 1));
            }
        }
    }
    rule
}
