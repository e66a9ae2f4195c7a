//! The loader, driven with texts and variables.

use super::*;
use crate::config::{LogFormat, Takeover, WhenAbsent};

const MANUAL: &str = include_str!("../../../../conf/freshet.toml");

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(text, "conf/x.toml", &environment).map(|loaded| loaded.config).map_err(|errors| errors.to_string())
}

fn error(text: &str) -> String {
    with(text, &[]).unwrap_err()
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    assert_eq!(with("", &[]), Ok(Config::default()));
}

#[test]
fn the_manual_shows_every_key_at_its_default() {
    assert_eq!(with(MANUAL, &[]), Ok(Config::default()));
    let shown: Table = MANUAL.parse().unwrap();
    assert_eq!(shown, Table::try_from(Raw::default()).unwrap());
    for (number, line) in MANUAL.lines().enumerate() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        let explained = MANUAL.lines().take(number).last().is_some_and(|above| above.starts_with("# "));
        assert!(!is_key || explained, "line {}: {line} has no comment above it", number + 1);
    }
}

#[test]
fn the_task_files_are_valid() {
    let rtc = include_str!("../../../../conf/rtc.toml");
    let https = include_str!("../../../../conf/https.toml");
    let rtmp2rtc = include_str!("../../../../conf/rtmp2rtc.toml");
    assert!(with(rtmp2rtc, &[]).unwrap().rtmp2rtc.enabled);
    assert!(!with(rtc, &[]).unwrap().rtc.candidates.is_empty());
    assert!(with(https, &[]).unwrap().https.files.is_some());
    let record = with(include_str!("../../../../conf/record.toml"), &[]).unwrap();
    assert_eq!((record.record.unwrap().streams.len(), record.hooks.urls[0].1.len()), (1, 1));
}

#[test]
fn values_arrive() {
    let config = with(
        r#"
            [http]
            listen = ["127.0.0.1:1", "8081"]
            allow_origin = "https://a.example:8443"
            trusted_proxies = ["10.0.0.0/8"]
            [rtc]
            candidates = ["203.0.113.7:9000", "*"]
            prefer_codec = "offer"
            ice_servers = ["stun:a.example", { urls = ["turn:b.example"], username = "u", credential = "c" }]
            [[forward.rules]]
            streams = ["live/*"]
            to = ["rtmp://other.example/[app]/[stream]", "rtmps://third.example/live/key"]
            verify_certificate = false
            [publish]
            takeover = "replace-if-silent"
            [play]
            when_absent = "refuse"
            [log]
            format = "json"
        "#,
        &[],
    )
    .unwrap();
    assert_eq!(config.http.listen, ["127.0.0.1:1".parse().unwrap(), "[::]:8081".parse().unwrap()]);
    assert_eq!(config.http.allow_origin, "https://a.example:8443");
    assert!(config.http.trusted_proxies[0].contains("10.9.9.9".parse().unwrap()));
    assert_eq!(config.rtc.candidates, ["203.0.113.7:9000".parse().unwrap()]);
    assert_eq!(config.rtc.prefer_codec, None);
    assert_eq!(config.rtc.ice_servers[1].username, "u");
    assert_eq!((config.forward.rules.len(), config.forward.rules[0].to.len()), (1, 2));
    assert!(!config.forward.rules[0].verify_certificate);
    assert_eq!(config.publish.takeover, Takeover::ReplaceIfSilent);
    assert_eq!(config.play.when_absent, WhenAbsent::Refuse);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.rtc.max_sessions, Config::default().rtc.max_sessions);
}

#[test]
fn every_spelling_of_toml_is_taken() {
    for text in [
        "rtc.shards = 3\nrtc.ice_servers = [\"stun:a\"]",
        "rtc = { shards = 3, ice_servers = [{ urls = [\"stun:a\"] }] }",
        "[rtc]\r\nshards = 3\r\n[[rtc.ice_servers]]\r\nurls = [\"stun:a\"]\r\n",
        "\u{feff}[rtc]\nshards = 0x3\nice_servers = [\n  \"stun:a\", # ours\n]",
    ] {
        let config = with(text, &[]).unwrap();
        assert_eq!((config.rtc.shards, config.rtc.ice_servers[0].urls[0].as_str()), (3, "stun:a"), "{text}");
    }
}

#[test]
fn mistakes_are_named_with_line_and_remedy() {
    for (text, expected) in [
        (
            "[publish]\ntakover = \"reject\"",
            "conf/x.toml:2: unknown key `takover` in [publish]: did you mean `takeover`?",
        ),
        ("\n[publsh]\n", "conf/x.toml:2: unknown section [publsh]: did you mean [publish]?"),
        ("takeover = \"reject\"", "conf/x.toml:1: key `takeover` stands outside a section: it belongs under [publish]"),
        ("[rtc]\ntokens = []", "conf/x.toml:2: unknown key `tokens` in [rtc]: it belongs under [play] or [publish]"),
        ("[shutdown]\nport = 1", "conf/x.toml:2: unknown key `port` in [shutdown]: there are drain_seconds"),
        (
            "[publish]\ntakeover = \"replace_if_silent\"",
            "conf/x.toml:2: bad value \"replace_if_silent\" for publish.takeover: allowed: reject, replace, replace-if-silent; did you mean \"replace-if-silent\"?",
        ),
        (
            "[rtc]\n\nlisten = 8000",
            "conf/x.toml:3: bad value for rtc.listen: a text in quotes is wanted, this is a whole number",
        ),
        (
            "[http]\nlisten = \"80\"",
            "a list in brackets is wanted, this is a text in quotes, for example listen = [\"80\"]",
        ),
        ("[rtc]\nshards = -1", "conf/x.toml:2: bad value -1 for rtc.shards: allowed: 0 to 256"),
        ("[rtc]\ncandidates = [\"media.example\"]", "names are not looked up"),
        ("[rtc]\nlisten = \"localhost:8000\"", "conf/x.toml:2: bad value \"localhost:8000\" for rtc.listen"),
        ("[rtc]\nice_servers = [{ url = \"stun:a\" }]", "an ICE server is a text like"),
        ("[rtc]\nice_servers = [\"turn:a.example\"]", "needs username and credential"),
        ("[https]\nkey = \"a.key\"", "conf/x.toml:2: https.key is \"a.key\" but https.certificate is not set"),
        ("[https]\nnames = [\"https://a.example\"]", "write a host name or an address"),
        ("[http]\nallow_origin = \"app.example\"", "bad value \"app.example\" for http.allow_origin"),
        ("[http]\ntrusted_proxies = [\"10.0.0.0/40\"]", "bad value \"10.0.0.0/40\" in http.trusted_proxies"),
        ("[publish]\ntokens = [\"\"]", "a token in publish.tokens is empty"),
        (
            "[hls]\nsegment_file = \"[app]/[stream].ts\"",
            "conf/x.toml:2: bad value \"[app]/[stream].ts\" for hls.segment_file: it must hold [seq], or files would overwrite each other",
        ),
        ("[hls]\nplaylist_file = \"../[app]/[stream].m3u8\"", "hls.playlist_file: write a path below the folder"),
        (
            "[hls]\nkey_url = \"keys.example\"",
            "conf/x.toml:2: bad value \"keys.example\" for hls.key_url: write the start",
        ),
        ("[hls]\npart_seconds = 5.0", "conf/x.toml:2: bad value 5 for hls.part_seconds: allowed: 0.05 to 2"),
        ("[hls]\nsegments_per_key = 0", "conf/x.toml:2: bad value 0 for hls.segments_per_key: allowed: 1 to 1000"),
        (
            "[record]\nstreams = [\"cam\"]",
            "conf/x.toml:2: bad value \"cam\" in record.streams: write app/stream, with * for any letters, as \"live/*\"",
        ),
        (
            "[record]\npath = \"/var/[stream]\"",
            "conf/x.toml:2: bad value \"/var/[stream]\" for record.path: a path is relative and without \"..\" and empty parts",
        ),
        (
            "[hooks]\non_record = [\"ftp://h/\"]",
            "conf/x.toml:2: bad value \"ftp://h/\" in hooks.on_record: write a URL such as \"http://127.0.0.1:8085/hook\"",
        ),
        ("[hooks]\non_dvr = [\"http://u:p@h/\"]", "in hooks.on_dvr: a user and password in the URL are not sent"),
        ("[hooks]\ntimeout_seconds = 0", "bad value 0 for hooks.timeout_seconds: allowed: 1 to 60"),
        ("[record]\npath = \"[strem]\"", "for record.path: [strem] is not known; there are [vhost]"),
        ("[record]\nformat = \"avi\"", "bad value \"avi\" for record.format: allowed: "),
        ("[record]\nplan = \"sessions\"", "did you mean \"session\"?"),
        ("[record]\nfolder = \"\"", "record.folder is empty"),
        ("[record]\nsegment_seconds = 0", "bad value 0 for record.segment_seconds: allowed: 1 to 86400"),
        (
            "[[forward.rules]]\nstreams = [\"cam\"]\nto = [\"rtmp://a/b/c\"]",
            "conf/x.toml:1: bad value \"cam\" for streams in forward.rules",
        ),
        (
            "[forward]\nrules = [{ streams = [\"live/*\"], to = [\"rtmp://a/b/c\", \"rtmp://a/b/[name]\"] }]",
            "conf/x.toml:2: bad value for to in forward.rules, address 2: [name] is not known; there are [app], [stream] and [vhost]",
        ),
        ("[forward]\nrules = [{ streams = [\"live/*\"], to = [] }]", "has no streams or no addresses"),
        (
            "[forward]\nrules = [{ stream = [\"live/*\"] }]",
            "bad value for forward.rules: unknown field `stream`, expected one of `streams`, `to`",
        ),
        ("[http\nlisten = []", "conf/x.toml:1: this is not TOML"),
        ("[rtc]\nshards = 1\n[rtc]\ntcp = true", "conf/x.toml:3: this is not TOML"),
        ("[rtc]\nshards = 1\nshards = 2", "conf/x.toml:3: this is not TOML"),
        ("listen 1935;\nrtc_server {\n  enabled on;\n}", "it looks like a file of SRS"),
        ("http = 3", "http is a section: write [http] on a line of its own"),
    ] {
        let said = error(text);
        assert!(said.contains(expected), "{text}\nsaid:     {said}\nexpected: {expected}");
    }
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_the_file() {
    let said = error("[rtc]\nshards = 1000\nlisten = 1\n[log]\nlevel = \"loud\"\n[http]\nlisen = []");
    let lines: Vec<&str> = said.lines().map(|line| &line[..13]).collect();
    assert_eq!(lines, ["conf/x.toml:2", "conf/x.toml:3", "conf/x.toml:5", "conf/x.toml:7"], "{said}");
}

#[test]
fn the_environment_overrides_the_file() {
    let config = with(
        "[rtc]\nlisten = \"[::]:8000\"\nshards = 3",
        &[
            ("FRESHET_RTC_LISTEN", "127.0.0.1:9000"),
            ("FRESHET_HTTP_LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
            ("FRESHET_RTC_TCP", "off"),
            ("FRESHET_RTC_ICE_SERVERS", "stun:a.example"),
            ("FRESHET_PUBLISH_TOKENS", ""),
            ("HOME", "/"),
        ],
    )
    .unwrap();
    assert_eq!(config.rtc.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!((config.http.listen.len(), config.rtc.tcp, config.rtc.shards), (2, false, 3));
    assert_eq!(config.rtc.ice_servers[0].urls, ["stun:a.example"]);
    assert!(config.publish.tokens.is_empty());
}

#[test]
fn wrong_variables_are_named() {
    for (variable, value, expected) in [
        (
            "FRESHET_RTC_LISTN",
            "x",
            "environment variable FRESHET_RTC_LISTN: there is no such setting: did you mean FRESHET_RTC_LISTEN?",
        ),
        ("FRESHET_X", "x", "the names are FRESHET_SECTION_KEY"),
        (
            "FRESHET_RTC_SHARDS",
            "two",
            "environment variable FRESHET_RTC_SHARDS: bad value \"two\" for rtc.shards: a whole number is wanted",
        ),
        ("FRESHET_LOG_LEVEL", "loud", "environment variable FRESHET_LOG_LEVEL: bad value \"loud\" for log.level"),
        ("CANDIDATE", "media.example", "environment variable CANDIDATE: bad value \"media.example\" in rtc.candidates"),
    ] {
        let said = with("", &[(variable, value)]).unwrap_err();
        assert!(said.contains(expected), "{said}\nexpected: {expected}");
    }
}

#[test]
fn candidates_come_from_the_names_that_srs_uses() {
    let candidates = |variables: &[(&str, &str)]| {
        let config = with("[rtc]\ncandidates = [\"192.0.2.1\"]", variables).unwrap();
        config.rtc.candidates.iter().map(|c| c.at(8000).to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(candidates(&[("CANDIDATE", "192.0.2.2")]), "192.0.2.2:8000");
    assert_eq!(candidates(&[("CANDIDATE", "192.0.2.2 192.0.2.3:9")]), "192.0.2.2:8000 192.0.2.3:9");
    assert_eq!(candidates(&[("CANDIDATE", "*")]), "");
    assert_eq!(candidates(&[("CANDIDATE", "")]), "192.0.2.1:8000");
    assert_eq!(candidates(&[("CANDIDATE", "192.0.2.2"), ("SRS_RTC_SERVER_CANDIDATE", "192.0.2.3")]), "192.0.2.3:8000");
    assert_eq!(candidates(&[("CANDIDATE", "192.0.2.2"), ("FRESHET_RTC_CANDIDATES", "192.0.2.4")]), "192.0.2.4:8000");
}

#[test]
fn the_effective_text_loads_again_and_keeps_secrets() {
    let text = "[hooks]\non_dvr = [\"http://h/?token=s3cret\"]\n[publish]\ntokens = [\"s3cret\"]\n[rtc]\nice_servers = [{ urls = [\"turn:a\"], username = \"u\", credential = \"s3cret\" }]\n[[forward.rules]]\nstreams = [\"live/*\"]\nto = [\"rtmp://a/live/s3cret?k=s3cret\"]\nverify_certificate = false";
    let effective = load(text, "x", &BTreeMap::new()).unwrap().text;
    assert!(!effective.contains("s3cret"), "{effective}");
    assert!(with(&effective, &[]).is_ok());
}
