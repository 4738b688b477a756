//! `docs/messages.md` against the structures: every table row, and the worked example.

use super::raw::{FIELD_FIELDS, HEADER_FIELDS, MUST_UNDERSTAND, PAYLOAD_ALIGN, Places, ROW_FIELDS};
use super::{Message, MessageView};

const DOC: &str = include_str!("../../docs/messages.md");

/// The rows of the first table below a heading: the cells of each, trimmed, without backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOC.lines().skip_while(|line| *line != heading).skip(1);
    let rows = lines.by_ref().skip_while(|line| !line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        })
        .collect();
    assert!(rows.len() > 2, "no table below `{heading}`");
    // Without the head and the rule below it.
    rows[2..].to_vec()
}

/// Same fields, same order, same places, no gap, no overlap, nothing left over.
fn compare(heading: &str, fields: &[(&str, usize, usize)], size: usize) {
    let rows = table(heading);
    assert_eq!(rows.len(), fields.len(), "{heading}: number of rows");
    let mut end = 0;
    for (row, (name, offset, len)) in rows.iter().zip(fields) {
        let documented = (row[0].parse(), row[1].parse());
        assert_eq!(row[2], *name, "{heading}");
        assert_eq!(documented, (Ok(*offset), Ok(*len)), "{heading}: {name}");
        assert_eq!(*offset, end, "{heading}: a gap or an overlap before {name}");
        end = offset + len;
    }
    assert_eq!(end, size, "{heading}: its size");
}

#[test]
fn every_field_is_where_the_page_says() {
    compare("### Fixed header", HEADER_FIELDS, 48);
    compare("### Header table", ROW_FIELDS, 6);
    compare("### Optional fields", FIELD_FIELDS, 6);
    assert_eq!(MUST_UNDERSTAND, 0x8000);
    assert_eq!(PAYLOAD_ALIGN, 8);
}

/// The worked example is what this build writes and reads.
#[test]
fn the_worked_example_is_what_we_write() {
    let fence = "```hex message";
    let lines = DOC.lines().skip_while(|line| *line != fence).skip(1);
    let example: Vec<u8> = lines
        .take_while(|line| *line != "```")
        .flat_map(|line| line[6..].split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect();

    let headers: [(&str, &[u8]); 2] = [("trace", b"a1"), ("retry", b"")];
    let message = Message::new(b"12 pieces")
        .id(0x0193_5c1e_6d3a_7b52_9c04_6e1f_0a8b_2d47)
        .timestamp_nanos(1_700_000_000_000_000_000)
        .topic("orders")
        .key(b"c17")
        .headers(&headers);
    let mut bytes = Vec::new();
    message.encode(&mut bytes).expect("all of it is short");
    let dump: String = bytes
        .chunks(16)
        .enumerate()
        .map(|(row, bytes)| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:04}: {}\n", row * 16, bytes.join(" "))
        })
        .collect();
    assert_eq!(bytes, example, "the page should say\n{dump}");

    let view = MessageView::parse(&example).expect("the example is a message");
    assert_eq!((view.topic(), view.key()), ("orders", Some(&b"c17"[..])));
    assert!(view.headers().eq(headers));
    // The table of its parts.
    let places: Places = message.measure(b"12 pieces").0;
    let parts = places.parts().into_iter().filter(|(_, start, end)| start != end);
    let parts = [("fixed header", 0, 48), ("header table", 48, 60)].into_iter().chain(parts);
    let documented = table("## A worked example");
    assert_eq!(documented.len(), parts.clone().count());
    for (row, (name, start, end)) in documented.iter().zip(parts) {
        let found = (row[0].parse(), row[1].parse(), row[2].as_str());
        assert_eq!(found, (Ok(start), Ok(end - start), name));
    }
}
