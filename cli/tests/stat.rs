//! `stat` and `demo`.

mod common;

use common::{Place, numbered_lines, succeed, tool};

#[test]
fn stat_json_has_every_figure() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(200_000));
    let stat = succeed(&["stat", &place.log, "--json"], b"");
    let stat: serde_json::Value = serde_json::from_slice(&stat).unwrap();
    assert_eq!(stat["segment_size"], 64 << 10);
    assert_eq!(stat["segments"], 16);
    assert_eq!(stat["capacity"], 1 << 20);
    assert_eq!(stat["clean_shutdown"], true);
    assert_eq!(stat["poisoned"], false);
    assert!(stat["persistence"].is_string());
    assert!(stat["writer"].is_null());
    assert!(stat["format_version"].is_u64() && stat["log_id"].is_string());
    assert!(stat["path"].as_str().unwrap().contains(&place.log));
    let figure = |name: &str| stat[name].as_u64().unwrap();
    assert!(figure("epoch") >= 1);
    assert!(figure("epoch_start") <= figure("committed"));
    assert!(figure("trimmed") <= figure("durable"));
    assert!(figure("durable") <= figure("committed"));
    assert!(figure("committed") > 200_000);
    assert!(figure("payload_bytes") > 190_000 && figure("payload_bytes") < 200_200);
    assert_eq!(
        figure("records") as usize,
        numbered_lines(200_000).split(|b| *b == b'\n').count() - 1
    );
    assert!(stat["last_recovery"].is_string());
    let map = stat["segment_map"].as_array().unwrap();
    assert_eq!(map.len(), 16);
    for (slot, segment) in map.iter().enumerate() {
        assert_eq!(segment["slot"], slot);
    }
    let states: Vec<&str> = map.iter().map(|segment| segment["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"sealed") && states.contains(&"clean"), "{states:?}");
}

#[test]
fn stat_draws_the_segments() {
    let place = Place::with_log("1MiB", "64KiB");
    succeed(&["ingest", &place.log], &numbered_lines(200_000));
    let text = String::from_utf8(succeed(&["stat", &place.log], b"")).unwrap();
    for word in
        ["trimmed", "durable", "committed", "segments", "# sealed", ". clean", "_ unused", "epoch"]
    {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    assert!(text.contains("###"), "{text}");
}

#[test]
fn the_demo_passes() {
    let place = Place::new();
    for args in [&["demo"][..], &["demo", "--producers", "2", "--keep", &place.log]] {
        let output = tool(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}\n{words}");
        assert!(text.contains("PASS"), "{text}");
    }
    assert!(succeed(&["stat", &place.log], b"").starts_with(b" log"));
}
