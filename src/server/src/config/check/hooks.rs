//! Checks of `[hooks]`.

use super::Findings;
use crate::config::raw::RawHooks;
use crate::hooks::{Action, HookSettings, HookUrl, RETRY_AFTER, Timing};

pub(super) fn check(f: &mut Findings<'_>, raw: &RawHooks) -> HookSettings {
    let typed = |action| match action {
        Action::OnRecord => &raw.on_record,
        Action::OnDvr => &raw.on_dvr,
    };
    let urls = Action::ALL.map(|action| (action, check_urls(f, action.name(), typed(action)))).into();
    let timeout = f.seconds("hooks", "timeout_seconds", raw.timeout_seconds, 1..=60);
    HookSettings { urls, timing: Timing { timeout, retry_after: RETRY_AFTER } }
}

fn check_urls(f: &mut Findings<'_>, key: &str, typed: &[String]) -> Vec<HookUrl> {
    let mut urls = Vec::with_capacity(typed.len());
    for text in typed {
        match HookUrl::parse(text.trim()) {
            Ok(url) => urls.push(url),
            Err(why) => f.add("hooks", key, format!("bad value {text:?} in hooks.{key}: {why}")),
        }
    }
    urls
}
